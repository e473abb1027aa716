"""How an image becomes the network's input: plain data that travels with weights.

The host's half (crop and resize) is data/crops.py, the device's (scaling) is augment.normalize.
"""

import math
from dataclasses import dataclass

METHODS = ("inception", "resize_crop", "resize")
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")


@dataclass(frozen=True)
class Preprocessing:
    """What evaluation and prediction do to an image.

    Attributes:
      image_size: pixels, height and width of the network's input.
      method: "inception", the released code's: the central `crop_fraction` of each side, resized
        without antialiasing, the aspect ratio not kept; "resize_crop", torchvision's and timm's:
        the shorter side resized, antialiased, to image_size / crop_fraction, and the centre
        cropped; "resize": the whole image resized to a square without antialiasing.
      crop_fraction: in (0, 1]; "resize" takes the whole image.
      interpolation: "bilinear", "bicubic" or "nearest".
      mean: of red, green, blue in [0, 1]; the input is (pixel / 255 - mean) / std.
      std: likewise. The defaults scale to [-1, 1].

    Raises:
      ValueError: naming a field whose value is none of these.
    """

    image_size: int = 299
    method: str = "inception"
    crop_fraction: float = 0.875
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self):
        for field, good in (
            ("image_size", self.image_size > 0),
            ("method", self.method in METHODS),
            ("crop_fraction", 0 < self.crop_fraction <= 1),
            ("interpolation", self.interpolation in INTERPOLATIONS),
            ("mean", len(self.mean) == 3 and all(map(math.isfinite, self.mean))),
            ("std", len(self.std) == 3 and all(0 < x < math.inf for x in self.std)),
        ):
            if not good:
                raise ValueError(f"preprocessing: {field}={getattr(self, field)!r} is out of range")
