"""How an image becomes the network's input: plain data, saved with weights.

crops.py does the host's half (crop and resize), `augment.scale_pixels` the device's (scaling).
"""

import math
from dataclasses import dataclass

METHODS = ("inception", "resize_crop", "resize")
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")


@dataclass(frozen=True)
class Preprocessing:
    """What evaluation and prediction do to an image.

    Attributes:
      image_size: Height and width of the network's input, pixels.
      method: "inception", the released code's: the central `crop_fraction` of each side, resized
        without antialiasing, the aspect ratio not kept; "resize_crop", torchvision's and timm's:
        the shorter side resized, antialiased, to image_size / crop_fraction, and the center
        cropped; "resize": the whole image resized to a square without antialiasing.
      crop_fraction: Fraction of each side that is kept, in (0, 1]; without effect for "resize".
      interpolation: "bilinear", "bicubic" or "nearest".
      mean: Mean of red, green and blue in [0, 1]; the input is (pixel / 255 - mean) / std.
      std: Standard deviation of red, green and blue. The defaults scale to [-1, 1].

    Raises:
      ValueError: For another value; it names the field.
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
