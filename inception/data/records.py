"""Data sets that tfds prepared as ArrayRecord files, read one record at a time.

A record is a serialized `tf.train.Example`; its image stays the encoded file it was made from.
Reading needs neither TensorFlow nor the code that made the data set: the folder's
dataset_info.json and features.json suffice. prepare.py makes such folders.
"""

import contextlib
import difflib
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from inception.data import DataError
from inception.data.decode import BadImage
from inception.data.paths import is_local

MAX_LABELS = 32  # of an image in a multi-label set: the fixed width of a batch's labels
_MAX_OPEN_FILES = 8192  # every shard stays open, and ImageNet's 1,088 exceed the usual limit


class RecordSource:
    """One split of a prepared tfds data set, with random access from any number of threads.

    Items are `(encoded image, label)`; the label is an int or, for a multi-label set such as
    imagenet2012_real, int32 `[label_width]` padded with -1 (all -1: no label).
    """

    def __init__(self, name: str, split: str, data_dir: str = "", *, labeled: bool = True):
        """Opens `split`, any tfds split expression ("train[:90%]"), of the data set `name`.

        Args:
            name: Name of the data set.
            split: Split expression.
            data_dir: Directory of data sets; empty for tfds's default.
            labeled: Whether labels are needed; if not, they are not read and all labels are -1.

        Raises:
            DataError: If the data set, its ArrayRecord files or the split are missing or empty, or
                its features are not an `image` and, if labels are needed, a `label`.
        """
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        info = find(name, data_dir)
        command = f"python -m inception.data.prepare --dataset={name}"
        command += data_dir and f" --data_dir={data_dir}"
        if info is None:
            manual = " ".join((builder_class(name).MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
            command += " --manual_dir=MANUAL_DIR" if manual else ""
            raise DataError(
                f"data set {name!r} is not in {data_root(data_dir)}. {manual} Run once:\n"
                f"  {command}\nor name its directory: --config.data_dir=..."
            )
        self._label, self.class_names = _label_of(info, labeled)
        self.num_classes = len(self.class_names)
        self.label_width = MAX_LABELS if self._label == "real_label" else 0

        splits = map(as_array_record, info.splits.values())
        shards = file_instructions(name, splits, split)
        if missing := [shard.filename for shard in shards if not Path(shard.filename).exists()]:
            raise DataError(
                f"data set {name!r} in {info.data_dir} ({info.file_format.value}) lacks "
                f"{len(missing)} of the {len(shards)} ArrayRecord files of split {split!r}, the "
                f"first {Path(missing[0]).name}. Run once, to convert the files that are there:\n"
                f"  {command}"
            )
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _MAX_OPEN_FILES)), hard))
        self._name = f"{name}:{split}"
        self._records = ArrayRecordDataSource(shards)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[bytes, int | np.ndarray]:
        features = self._features(index)
        return features["image"].bytes_list.value[0], self._label_in(features)

    def labels(self) -> np.ndarray:
        """Returns the labels of all records, int32 [n] or [n, label_width]; decodes no image."""
        return np.array([self._label_in(self._features(i)) for i in range(len(self))], np.int32)

    def _label_in(self, features: Any) -> int | np.ndarray:
        if not self._label:
            return -1
        labels = list(features[self._label].int64_list.value)
        if not self.label_width:
            return labels[0]
        return np.array(labels + [-1] * (self.label_width - len(labels)), np.int32)

    def name(self, index: int) -> str:
        """Returns the record's file_name, or its index in the split if it has none."""
        with contextlib.suppress(BadImage):
            if names := self._features(index)["file_name"].bytes_list.value:
                return names[0].decode()
        return f"record {index} of {self._name}"

    def _features(self, index: int) -> Any:
        """Returns the features of a record by name."""
        from tensorflow_datasets.proto import tf_example_pb2  # tfds's copy, without TensorFlow

        index = range(len(self))[index]  # IndexError ends an iteration, as for a list
        try:
            record = self._records[index]
        except Exception as error:  # ArrayRecord raises all kinds
            raise BadImage(f"the record cannot be read: {error}") from error
        proto: Any = tf_example_pb2
        return proto.Example.FromString(record).features.feature


def find(name: str, data_dir: str = "") -> Any:
    """Returns tfds's DatasetInfo of the newest version of a data set; None if there is none.

    The name may include config and version: "imagenet_v2/topimages:3.0.0".
    """
    from google.protobuf.json_format import ParseError
    from tensorflow_datasets.core import read_only_builder, registered

    root = data_root(data_dir)
    try:
        return read_only_builder.builder_from_files(name, data_dir=root).info
    except registered.DatasetNotFoundError:
        return None
    except ParseError as error:
        raise DataError(
            f"data set {name!r} in {root}: its dataset_info.json or features.json is damaged "
            f"({error}). Remove its folder and prepare it again"
        ) from None
    except ValueError as error:  # a name of another form, or the same data set in two places
        raise DataError(f"data set {name!r}: {str(error).splitlines()[0]}") from None


def builder_class(name: str) -> Any:
    """Returns the class that can prepare a data set: tfds's, ours or one that was registered.

    Raises:
        DataError: For an unknown name, with similar known ones.
    """
    import tensorflow_datasets as tfds

    import inception.data.digits  # noqa: F401 (registers it)

    base = name.split("/")[0].split(":")[0]
    known = [*tfds.list_builders(with_community_datasets=False), "folder", "fake"]
    if base not in known:
        near = " or ".join(difflib.get_close_matches(base, known))
        raise DataError(
            f"unknown data set {name!r}: neither one of tfds's nor 'digits', 'folder' or "
            f"'fake'{near and f'; did you mean {near}?'}"
        )
    return tfds.builder_cls(base)


def file_instructions(name: str, splits: Iterable[Any], split: str) -> list:
    """Returns tfds's file instructions (filename, skip, take, ...) of a split expression.

    Raises:
        DataError: For an unknown or empty split, with those of the data set `name`.
    """
    from tensorflow_datasets.core.splits import SplitDict

    known = SplitDict(splits)
    try:
        parts = known[split].file_instructions
        if parts and all(part.take > 0 for part in parts):  # "train[5:2]" takes -3
            return parts
        problem = "it is empty."
    except ValueError as error:
        problem = str(error)
    sizes = ", ".join(f"{each.name} ({each.num_examples:,})" for each in known.values())
    raise DataError(f"split {split!r} of {name}: {problem} The data set has {sizes}")


def as_array_record(split_info: Any) -> Any:
    """Returns tfds's SplitInfo with the names of ArrayRecord files, whatever its format is."""
    names = split_info.filename_template.replace(filetype_suffix="array_record")
    return split_info.replace(filename_template=names)


def data_root(data_dir: str) -> Path:
    """Returns `data_dir` as a path; tfds's default directory if it is empty."""
    from tensorflow_datasets.core import constants

    data_dir = data_dir or str(constants.DATA_DIR)
    if not is_local(data_dir):
        raise DataError(
            f"data_dir {data_dir}: ArrayRecord files cannot be read from a bucket. Mount it (with "
            "gcsfuse, for example) and give the mount point"
        )
    try:
        return Path(data_dir).expanduser()
    except RuntimeError as error:  # no HOME, and no user of this number
        raise DataError(
            f"data_dir {data_dir}: this process has no home directory. Name another: "
            "--config.data_dir=..."
        ) from error


def _label_of(info: Any, labeled: bool) -> tuple[str, tuple[str, ...]]:
    """Returns the label feature's name and the names of its classes; nothing if not `labeled`."""
    import tensorflow_datasets as tfds

    features = dict(info.features)
    if not labeled:
        if isinstance(features.get("image"), tfds.features.Image):
            return "", ()
        raise DataError(
            f"data set {info.full_name} needs an Image named 'image', but has {features}"
        )
    name = "label" if "label" in features else "real_label"
    image, label = features.get("image"), features.get(name)
    if isinstance(label, tfds.features.Sequence):
        label = label.feature
    if not (isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel)):
        raise DataError(
            f"data set {info.full_name} is not for classification: it needs an Image named "
            f"'image' and a ClassLabel named 'label' (or 'real_label'), but has {features}"
        )
    return name, tuple(label.names)
