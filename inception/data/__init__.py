"""The input pipeline: from files on a disk to batches of augmented images.

Read in this order: sources.py (what can be read: tfds data sets, folders, arrays, fake images),
decode.py and crops.py (from encoded bytes to pixels of the right size), readers.py (one example,
named in its errors), stream.py (which example is where in which batch), batches.py (the threads
that fill the batches) and augment.py (the rest, on the device). prepare.py makes the data sets that
records.py reads; folder.py and digits.py are two sources; datasets.py opens what a config names.
"""

from inception.errors import UserError


class DataError(UserError, ValueError):
    """Missing or unusable data; the message names the file, record or field."""
