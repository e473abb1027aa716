"""JPEG files like ImageNet's for benchmarks of the input, from photographs that packages ship."""

import itertools
from pathlib import Path

import numpy as np
from PIL import Image

from inception.data.crops import crop, sample_distorted_box
from inception.errors import UserError

HEIGHT, WIDTH = 375, 500  # about ImageNet's averages
NAMES = "astronaut coffee chelsea rocket retina hubble_deep_field immunohistochemistry"


def write_photographs(root: Path, count: int = 128) -> list[Path]:
    """Writes JPEG files root/train/photograph/*.jpg of varied content, quality 90.

    Returns:
      Their paths.

    Raises:
      UserError: If scikit-image, which has the photographs, is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise UserError("the photographs need scikit-image: pip install scikit-image") from error
    from sklearn.datasets import load_sample_images

    photographs = [getattr(data, name)() for name in NAMES.split()] + load_sample_images().images
    rng = np.random.default_rng(0)
    folder = root / "train" / "photograph"
    folder.mkdir(parents=True)
    for i, photograph in zip(range(count), itertools.cycle(photographs), strict=False):
        height, width, _ = photograph.shape
        box = sample_distorted_box(rng, height, width, area=(0.4, 1.0), aspect=(1.33, 1.34))
        image = Image.fromarray(crop(photograph, box)).resize((WIDTH, HEIGHT))
        image.save(folder / f"{i:03}.jpg", quality=90)
    return sorted(folder.iterdir())
