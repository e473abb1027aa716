"""The full recipe: Inception-v3 as section 8 of arXiv 1512.00567 trains it.

Every field, its default and its meaning are in inception/defaults.py; every other file of this
folder is its parent plus a change.
"""

from ml_collections import ConfigDict

from inception import defaults


def get_config() -> ConfigDict:
    """Returns the defaults of every field."""
    return defaults.get_config()
