"""tfds data sets of real photographs that scikit-image ships, with ImageNet's features."""

import io
import os
import time
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import skimage.data
import tensorflow_datasets as tfds

CLASSES = ("astronaut", "chelsea", "coffee")
NUM_TRAIN, NUM_VALIDATION = 36, 10


def photograph(index: int) -> tuple[bytes, int]:
    """Returns a JPEG file cut from one of three photographs, and which of them."""
    label = index % len(CLASSES)
    image = getattr(skimage.data, CLASSES[label])()
    rng = np.random.default_rng(index)
    top, left = rng.integers(0, 100, 2)
    crop = np.ascontiguousarray(image[top : top + 150, left : left + 200, ::-1])
    return cv2.imencode(".jpg", crop)[1].tobytes(), label


class TestPhotos(tfds.core.GeneratorBasedBuilder):
    """The features and splits of imagenet2012."""

    __test__ = False  # no test for pytest to collect
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(names=list(CLASSES)),
                    "file_name": tfds.features.Text(),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(range(NUM_TRAIN)),
            "validation": self._generate_examples(range(NUM_TRAIN, NUM_TRAIN + NUM_VALIDATION)),
        }

    def _generate_examples(self, indices):
        for index in indices:
            if index == 20 and (flag := os.environ.get("STALL_AND_TOUCH")):
                Path(flag).touch()
                time.sleep(600)
            image, label = photograph(index)
            yield (
                index,
                {"image": io.BytesIO(image), "label": label, "file_name": f"{index}.JPEG"},
            )


class TestPhotosReal(tfds.core.GeneratorBasedBuilder):
    """The features of imagenet2012_real: none, one or several labels per image."""

    __test__ = False
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        label = tfds.features.ClassLabel(names=list(CLASSES))
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "original_label": label,
                    "real_label": tfds.features.Sequence(label),
                    "file_name": tfds.features.Text(),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"validation": self._generate_examples()}

    def _generate_examples(self):
        for index, labels in enumerate([[], [1], [0, 2]]):
            yield (
                index,
                {
                    "image": io.BytesIO(photograph(index)[0]),
                    "original_label": index,
                    "real_label": labels,
                    "file_name": f"{index}.JPEG",
                },
            )


class TestUnlabelled(tfds.core.GeneratorBasedBuilder):
    """One split without labels (-1, as imagenet2012's test split), and a caption."""

    __test__ = False
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="unknown"),
        tfds.core.BuilderConfig(name="none"),
    ]

    def _info(self):
        features = {"image": tfds.features.Image(encoding_format="jpeg")}
        if self.builder_config.name == "unknown":
            features["label"] = tfds.features.ClassLabel(names=list(CLASSES))
        else:
            features["caption"] = tfds.features.Text()
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"test": self._generate_examples()}

    def _generate_examples(self):
        rest = {"label": -1} if self.builder_config.name == "unknown" else {"caption": "a cat"}
        yield 0, {"image": io.BytesIO(photograph(0)[0]), **rest}
