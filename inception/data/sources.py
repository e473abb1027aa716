"""Random access to encoded images and labels, wherever they come from.

`open_source` makes a RecordSource (tfds, records.py), a FolderSource (folder.py) or a FakeSource
(generated images, for benchmarks); ArraySource wraps arrays in memory. Anything with their
interface, usable from several threads at once, can be read:

    len(source)     the number of examples
    source[index]   an encoded file or uint8 [height, width, 1 or 3], and its label: an integer or,
                    if there may be several, int32 [label_width] padded with -1; raises BadImage
                    if the file cannot be read
    name(index)     the path or name of the image's file, or another name for error messages
    labels()        the labels of all examples, int32 [n] or [n, label_width]; opens no image
    num_classes     the number of classes
    class_names     their names, or ()
    label_width     0 if every image has one label
"""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from inception.data import DataError
from inception.data.decode import read_file
from inception.data.folder import FolderSource
from inception.data.records import RecordSource, file_instructions

# A file's path or content, or pixels: uint8 [height, width], or [height, width, 1 or 3].
AnyImage = str | os.PathLike | bytes | np.ndarray
Label = int | np.ndarray


class ArraySource:
    """Images in memory and their labels, for notebooks, tests and prediction."""

    def __init__(
        self,
        images: Sequence[AnyImage] | np.ndarray,
        labels: Sequence[int] | np.ndarray,
        class_names: Sequence[str] = (),
        num_classes: int = 0,
    ):
        """Wraps arrays; nothing is copied.

        Args:
            images: n images, or pixels uint8 [n, height, width, 1 or 3].
            labels: Integers `[n]`, or `[n, label_width]` padded with -1.
            class_names: Names of the classes, or ().
            num_classes: Number of classes; 0: the number of names or, without names, the largest
                label + 1.

        Raises:
            DataError: For labels of another shape or type.
        """
        self._images, self._labels = images, np.asarray(labels)
        shape, kind = self._labels.shape, self._labels.dtype
        if len(shape) not in (1, 2) or kind.kind not in "iu" or len(images) != shape[0]:
            raise DataError(
                f"labels of {len(images)} images are {kind} {list(shape)}, and must be integers "
                f"[{len(images)}] or [{len(images)}, label_width]"
            )
        self.label_width = shape[1] if len(shape) == 2 else 0
        self.class_names = tuple(class_names)
        self.num_classes = num_classes or len(class_names) or int(self._labels.max(initial=0)) + 1

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[bytes | np.ndarray, Label]:
        image, label = self._images[index], self._labels[index]
        if isinstance(image, (str, os.PathLike)):
            image = read_file(os.fspath(image))
        return image, label.astype(np.int32) if self.label_width else int(label)

    def labels(self) -> np.ndarray:
        """Returns the labels of all examples, int32 [n] or [n, label_width]."""
        return self._labels.astype(np.int32)

    def name(self, index: int) -> str:
        """Returns the image's path, or "image INDEX" if it has none."""
        image = self._images[index]
        return os.fspath(image) if isinstance(image, (str, os.PathLike)) else f"image {index}"


class FakeSource(ArraySource):
    """Generated JPEG files of an ImageNet photograph's size, for benchmarks and dry runs.

    A few images are generated and repeated; an example depends on its index alone.
    """

    _SHAPES = ((3, 4), (4, 3), (2, 3), (1, 1))  # height : width, cameras' usual ones

    def __init__(self, num_examples: int, num_classes: int = 1000, image_size: int = 500):
        """Generates images whose longer side has image_size pixels; labels cycle."""
        rng = np.random.default_rng(0)
        shapes = [np.array(shape) * image_size // max(shape) for shape in self._SHAPES * 4]
        files = [_photograph(rng, *shape) for shape in shapes]
        images = files * -(-num_examples // len(files))
        labels = np.arange(num_examples, dtype=np.int32) % num_classes
        super().__init__(images[:num_examples], labels, num_classes=num_classes)

    @classmethod
    def of_split(cls, split: str) -> "FakeSource":
        """A source of the size of ImageNet's train or validation split, or of a slice of it."""
        from tensorflow_datasets.core import naming, splits

        sizes = {"train": 1_281_167, "validation": 50_000}
        names = naming.ShardedFileTemplate(Path(), dataset_name="fake", filetype_suffix="jpeg")
        infos = [splits.SplitInfo(name, [size], 0, names) for name, size in sizes.items()]
        return cls(sum(part.take for part in file_instructions("fake", infos, split)))

    def name(self, index: int) -> str:
        """Returns the name of ImageNet's validation image of this index."""
        return f"ILSVRC2012_val_{index + 1:08d}.JPEG"


def _photograph(rng: np.random.Generator, height: int, width: int) -> bytes:
    """Returns a JPEG file with about a photograph's spectrum and size (100 kB at 500x375)."""
    image: np.ndarray = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 10):
        grid = rng.standard_normal((2**octave, 2**octave, 3)).astype(np.float32)
        smooth = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        image = image + smooth / 2 ** (0.4 * octave)
    pixels = np.clip(127 + 60 * image, 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


Source = RecordSource | FolderSource | ArraySource


def open_source(
    dataset: str,
    split: str,
    data_dir: str = "",
    *,
    on_bad_record: str = "fail",
    labeled: bool = True,
) -> Source:
    """Opens a split of a data set; prepares `digits` on first use.

    Args:
        dataset: Name of a tfds data set, "digits", "folder" or "fake".
        split: A tfds split expression; for "folder" a folder's name.
        data_dir: Directory of the data set; empty for tfds's default.
        on_bad_record: "fail", or "skip": leave out a folder's files whose suffix is not an image's.
        labeled: Whether labels are needed; a tfds data set without any has -1 for each image.

    Raises:
        DataError: For an unknown data set or split, an empty one, files that are not images, or
            missing data; then the message says how to get them.
    """
    match dataset:
        case "fake":
            return FakeSource.of_split(split)
        case "folder":
            return FolderSource(data_dir, split, on_bad_record=on_bad_record)
        case "digits":
            # Not at the top: `python -m inception.data.prepare` must not find itself imported.
            from inception.data.prepare import prepare

            prepare("digits", data_dir)
    return RecordSource(dataset, split, data_dir, labeled=labeled)
