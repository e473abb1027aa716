"""The full recipe: Inception-v3 as section 8 of arXiv 1512.00567 trains it.

Every field, its meaning and its default are in inception/defaults.py; the other files of this
folder are this one plus a change.
"""

from ml_collections import ConfigDict

from inception import defaults


def get_config() -> ConfigDict:
    """Returns the defaults of every field."""
    return defaults.get_config()
