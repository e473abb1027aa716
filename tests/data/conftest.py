"""A folder of images that several files read."""

import pytest

from tests.data.folders import encoded, write


@pytest.fixture
def root(tmp_path):
    """Four images of three classes for training, and one for validation."""
    write(tmp_path / "train/zebra/b.JPEG", encoded(".jpg"))
    write(tmp_path / "train/zebra/a.jpg", encoded(".jpg"))
    write(tmp_path / "train/ant/c.PNG", encoded(".png"))
    write(tmp_path / "train/bee/d.WebP", encoded(".webp"))
    write(tmp_path / "val/zebra/e.jpeg", encoded(".jpg"))
    return tmp_path
