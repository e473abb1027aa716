"""What the network reads: from files on a disk to batches of uint8 images.

Read in this order: sources.py (what can be read: tfds data sets, folders, arrays, fake images),
decode.py and crops.py (from encoded bytes to pixels of the right size), readers.py (an example,
its errors named) and stream.py (batches). prepare.py makes the data sets that records.py reads;
folder.py and digits.py are two sources.
"""

from inception.errors import UserError


class DataError(UserError, ValueError):
    """Data that are missing or cannot be used; the message names the file, record or field."""
