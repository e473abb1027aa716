"""Folders of images, one folder per class."""

from pathlib import Path

import cv2
import numpy as np
import skimage.data

PHOTOGRAPH = np.ascontiguousarray(skimage.data.astronaut()[:100, :120, ::-1])


def encoded(suffix: str) -> bytes:
    return cv2.imencode(suffix, PHOTOGRAPH)[1].tobytes()


def write(path: Path, content: bytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
