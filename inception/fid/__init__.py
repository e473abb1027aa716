"""FID, sFID, KID, IS, precision, recall, density and coverage of generated images.

from inception import fid

extract = fid.Extractor("fid", protocol="tensorflow", layers=("pooled", "spatial"))
moments = fid.empty(extract)  # a pytree; one accumulator on each device

@jax.jit
def step(extract, moments, params, key):  # your own sampling step, sharded as it is
    images = fid.to_uint8(sample(params, key))
    return fid.add(moments, extract.features(images))  # no communication

statistics = fid.finish(moments)  # float64, equal on all processes
fid.distance(statistics["pooled"], fid.load("reference.npz", "adm").statistics["pooled"])

summary = fid.measure(fid.open_images("samples/"), extract)  # the same from files

What takes features [n, d] takes those of any network. As a command: python -m inception.fid.
docs/fid.md says which protocol a paper means and what changes the numbers.
"""

from inception.fid.bridge import UserError
from inception.fid.extract import Extractor, to_uint8
from inception.fid.files import Summary, load, save
from inception.fid.frechet import distance, distance_at_infinity
from inception.fid.images import open_images
from inception.fid.kernel import kernel_distance
from inception.fid.metrics import compare
from inception.fid.moments import Moments, add, empty, finish
from inception.fid.neighbors import neighborhoods
from inception.fid.pipeline import measure
from inception.fid.protocols import PROTOCOLS, Protocol
from inception.fid.score import inception_score
from inception.fid.statistics import Origin, Statistics, statistics_of

__all__ = [
    "PROTOCOLS",
    "Extractor",
    "Moments",
    "Origin",
    "Protocol",
    "Statistics",
    "Summary",
    "UserError",
    "add",
    "compare",
    "distance",
    "distance_at_infinity",
    "empty",
    "finish",
    "inception_score",
    "kernel_distance",
    "load",
    "measure",
    "neighborhoods",
    "open_images",
    "save",
    "statistics_of",
    "to_uint8",
]
