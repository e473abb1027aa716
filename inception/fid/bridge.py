"""All that this folder uses of the rest of the package."""

from inception.errors import UserError

__all__ = ["UserError"]
