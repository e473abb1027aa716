"""FID, KID, IS, precision and recall."""

from inception.fid.bridge import UserError
from inception.fid.extract import Extractor, to_uint8
from inception.fid.moments import Moments, add, empty, finish
from inception.fid.statistics import Origin, Statistics, statistics_of

__all__ = [
    "Extractor",
    "Moments",
    "Origin",
    "Statistics",
    "UserError",
    "add",
    "empty",
    "finish",
    "statistics_of",
    "to_uint8",
]
