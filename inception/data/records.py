"""Data sets that tfds prepared as ArrayRecord files, read one record at a time.

A record is a serialized `tf.train.Example`; its image stays the encoded file it was made from.
Reading needs neither TensorFlow nor the code that made the data set: the folder's
dataset_info.json and features.json say everything. prepare.py makes such folders.
"""

import difflib
import re
import resource
from pathlib import Path
from typing import Any

import numpy as np

from inception.data import DataError, DataNotFound
from inception.data.decode import BadImage

# Room for the labels of one image of a multi-label set, because a batch needs a fixed width.
MAX_LABELS = 32


class RecordSource:
    """One split of a prepared tfds data set, with random access from any number of threads.

    Items are `(encoded image, label)`; the label is an int or, for a multi-label set such as
    imagenet2012_real, int32 `[label_width]` padded with -1 (all -1: nobody found a label).
    """

    def __init__(self, name: str, split: str, data_dir: str = ""):
        """Opens `split`, any tfds split expression ("train[:90%]"), of the data set `name`.

        Raises:
            DataNotFound: the data set, or its ArrayRecord files, are not in `data_dir`.
            DataError: unknown data set or split, empty split, or features that are not an
                `image` and a `label`.
        """
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        info = find(name, data_dir)
        if info is None:
            raise DataNotFound(_how_to_prepare(name, data_dir))
        self._label_feature, self.num_classes, self.class_names = _label_of(info)
        self.label_width = MAX_LABELS if self._label_feature == "real_label" else 0

        splits = [as_array_record(each) for each in info.splits.values()]
        shards = file_instructions(name, splits, split)
        if missing := [shard.filename for shard in shards if not Path(shard.filename).exists()]:
            raise DataNotFound(
                f"data set {name!r} in {info.data_dir} ({info.file_format.value}) lacks "
                f"{len(missing)} of the {len(shards)} ArrayRecord files of split {split!r}, the "
                f"first {Path(missing[0]).name}. This writes them beside what is there, once:\n"
                f"  {prepare_command(name, data_dir)}"
            )
        _allow_open_files(len(shards))
        self._name = f"{name}:{split}"
        self._records = ArrayRecordDataSource(shards)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[bytes, int | np.ndarray]:
        features = _parse(self._read(index))
        image = features["image"].bytes_list.value[0]
        labels = list(features[self._label_feature].int64_list.value)
        if not self.label_width:
            return image, labels[0]
        if len(labels) > self.label_width:
            raise DataError(
                f"{self.describe(index)} has {len(labels)} labels; at most {self.label_width} fit"
            )
        return image, np.array(labels + [-1] * (self.label_width - len(labels)), np.int32)

    def describe(self, index: int) -> str:
        """Returns what an error message calls this example."""
        return f"record {index} of {self._name}"

    def file_name(self, index: int) -> str:
        """Returns the record's feature of that name; "" if it has none."""
        names = _parse(self._read(index))["file_name"].bytes_list.value
        return names[0].decode() if names else ""

    def _read(self, index: int) -> bytes:
        index = range(len(self))[index]  # IndexError ends an iteration, as for a list
        try:
            return self._records[index]
        except Exception as error:  # ArrayRecord raises all kinds
            raise BadImage(f"the record cannot be read: {error}") from error


def find(name: str, data_dir: str = "") -> Any:
    """Returns tfds's DatasetInfo of the newest version of a data set; None if there is none.

    Args:
        name: tfds's name, with config and version where wanted: "imagenet_v2/topimages:3.0.0".
        data_dir: tfds's data directory; empty for its default.
    """
    from google.protobuf.json_format import ParseError
    from tensorflow_datasets.core import read_only_builder, registered

    if not re.fullmatch(r"\w+(/[^/:]+)*(:[\d.*]+)?", name):
        raise DataError(f"data set {name!r}: it must be NAME, NAME/CONFIG or NAME/CONFIG:1.2.3")
    try:
        return read_only_builder.builder_from_files(name, data_dir=data_root(data_dir)).info
    except registered.DatasetNotFoundError:
        return None
    except ParseError as error:
        raise DataError(
            f"data set {name!r} in {data_root(data_dir)}: its dataset_info.json or features.json "
            f"is damaged ({error}); remove its folder and prepare it again"
        ) from None
    except ValueError as error:  # the same data set in two places
        raise DataError(f"data set {name!r}: {error}") from None


def builder_class(name: str) -> Any:
    """Returns the class that can prepare a data set, tfds's own, ours or one you registered.

    Raises:
        DataError: nobody knows the name; says which known ones are near.
    """
    import tensorflow_datasets as tfds

    import inception.data.digits  # noqa: F401 (registers it)

    base = name.split("/")[0].split(":")[0]
    known = {*tfds.list_builders(with_community_datasets=False), "folder", "fake"}
    if base not in known:
        near = " or ".join(difflib.get_close_matches(base, sorted(known)))
        raise DataError(
            f"unknown data set {name!r}: neither a name that tfds knows nor 'digits', 'folder' or "
            f"'fake'{near and f'; did you mean {near}?'}"
        )
    return tfds.builder_cls(base)


def file_instructions(name: str, splits: list, split: str) -> list:
    """Returns tfds's file instructions (filename, skip, take, ...) of a split expression.

    Raises:
        DataError: an unknown split, or an empty one; says what the data set `name` has.
    """
    from tensorflow_datasets.core.splits import SplitDict

    sizes = ", ".join(f"{each.name} ({each.num_examples:,})" for each in splits)
    try:
        parts = SplitDict(splits)[split].file_instructions
    except ValueError as error:
        raise DataError(f"split {split!r} of {name}: {error} It has {sizes}") from None
    if not parts:
        raise DataError(f"split {split!r} of {name} is empty. It has {sizes}")
    return parts


def as_array_record(split_info: Any) -> Any:
    """Returns tfds's SplitInfo with the names of ArrayRecord files.

    Also where the data set was prepared as TFRecord: its converted copy lies beside it.
    """
    names = split_info.filename_template.replace(filetype_suffix="array_record")
    return split_info.replace(filename_template=names)


def data_root(data_dir: str) -> Path:
    """Returns the directory that `data_dir` means; if it is empty, tfds's default."""
    from tensorflow_datasets.core import constants

    data_dir = data_dir or str(constants.DATA_DIR)
    if "://" in data_dir:
        raise DataError(
            f"data_dir {data_dir} is a bucket, from which ArrayRecord files cannot be read: mount "
            "it (with gcsfuse, for example) and give the folder it is mounted on"
        )
    return Path(data_dir).expanduser()


def prepare_command(name: str, data_dir: str, manual_dir: str = "") -> str:
    """Returns the command line that prepares a data set."""
    flags = {"dataset": name, "data_dir": data_dir, "manual_dir": manual_dir}
    return " ".join(
        ["python -m inception.data.prepare", *(f"--{k}={v}" for k, v in flags.items() if v)]
    )


def _how_to_prepare(name: str, data_dir: str) -> str:
    manual = builder_class(name).MANUAL_DOWNLOAD_INSTRUCTIONS or ""
    steps = f" {' '.join(manual.split())} Then run," if manual else " Run,"
    command = prepare_command(name, data_dir, manual_dir="MANUAL_DIR" if manual else "")
    return (
        f"data set {name!r} is not in {data_root(data_dir)}.{steps} once:\n"
        f"  {command}\nor name the directory that holds it: --config.data_dir=..."
    )


def _parse(record: bytes) -> Any:
    """Returns the features of a serialized `tf.train.Example` by name."""
    from tensorflow_datasets.proto import tf_example_pb2  # tfds's own copy, without TensorFlow

    example: Any = tf_example_pb2
    return example.Example.FromString(record).features.feature


def _label_of(info: Any) -> tuple[str, int, tuple[str, ...]]:
    """Returns the label feature's name, the number of classes and their names."""
    import tensorflow_datasets as tfds

    features = dict(info.features)
    name = "label" if "label" in features else "real_label"
    image, label = features.get("image"), features.get(name)
    if isinstance(label, tfds.features.Sequence):
        label = label.feature
    if not (isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel)):
        raise DataError(
            f"data set {info.full_name} is not for classification: it needs an Image named "
            f"'image' and a ClassLabel named 'label' (or 'real_label'), and has {features}"
        )
    return name, len(label.names), tuple(label.names)


def _allow_open_files(number: int) -> None:
    """Makes room for open files: a reader holds each shard open, and 1,024 is a usual limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        wanted = soft + number if hard == resource.RLIM_INFINITY else min(soft + number, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
