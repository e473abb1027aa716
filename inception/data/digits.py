"""scikit-learn's handwritten digits as a tfds data set: the quick start's real images.

1,797 images of 8x8 pixels and 10 classes, from scikit-learn's own package: nothing is downloaded.
The split is fixed: 1,437 to train, 360 for validation.

Importing this module registers the builder with tfds and so imports tensorflow_datasets (not
TensorFlow): import it inside the function that needs it.
"""

import io

import cv2
import numpy as np
import tensorflow_datasets as tfds

NUM_TRAIN = 1437


class Digits(tfds.core.GeneratorBasedBuilder):
    """PNG images `[8, 8, 1]` and labels 0 to 9."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="The test part of the UCI handwritten digits, as scikit-learn ships it.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                }
            ),
        )

    def _split_generators(self, _):
        # The file is sorted by writer: shuffling puts every writer into both splits. NumPy's
        # legacy generator is frozen, so this permutation never changes.
        order = np.random.RandomState(0).permutation(1797)
        return {
            "train": self._generate_examples(order[:NUM_TRAIN]),
            "validation": self._generate_examples(order[NUM_TRAIN:]),
        }

    def _generate_examples(self, indices):
        from sklearn.datasets import load_digits  # half a second that only preparing needs

        intensities, labels = load_digits(return_X_y=True)  # intensities 0 to 16, [1797, 64]
        images = np.round(intensities * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
        for index in indices:
            png = cv2.imencode(".png", images[index])[1].tobytes()
            yield int(index), {"image": io.BytesIO(png), "label": int(labels[index])}
