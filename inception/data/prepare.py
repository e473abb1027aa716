"""Prepares a data set for training, once, as ArrayRecord files in tfds's layout.

    python -m inception.data.prepare --dataset=imagenet2012 --data_dir=D --manual_dir=M

Not there yet: tfds makes it, from the files in `manual_dir` or a download. There as TFRecord, made
by somebody else: every file is converted to an ArrayRecord file beside it, compared record by
record, and the original is left as it is. There already: nothing is done.

It can be stopped and started again at any time, and started twice at once: a data set appears
under its name only when it is complete, a converted file only when it was compared.
"""

import fcntl
import operator
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from inception import command_line
from inception.data import DataError, records
from inception.ops.platforms import cores

# The archives that image-net.org gives after registration: how many files are in each.
ARCHIVES = {
    "imagenet2012": {"ILSVRC2012_img_train.tar": 1000, "ILSVRC2012_img_val.tar": 50_000},
    "imagenet2012_real": {"ILSVRC2012_img_val.tar": 50_000},
}


def prepare(name: str, data_dir: str = "", manual_dir: str = "", *, progress: bool = False) -> Path:
    """Makes sure that a tfds data set lies in `data_dir` as ArrayRecord files.

    tfds may import TensorFlow to make a data set: hide the GPUs from it first, as `main` does,
    unless this process needs them no more.

    Args:
        name: tfds's name, "imagenet2012" or "imagenet_v2/topimages", or "digits".
        data_dir: where data sets lie; empty for tfds's default, ~/tensorflow_datasets.
        manual_dir: where the archives lie that you must download yourself.
        progress: whether to show bars.

    Returns:
        The data set's folder.

    Raises:
        DataError: unknown data set, archives that are missing or cut short, a folder that cannot
            be written or is taken, or a TFRecord copy that is damaged.
    """
    if name in ("folder", "fake"):
        raise DataError(f"data set {name!r} needs no preparation")
    root = records.data_root(data_dir)
    if info := records.find(name, data_dir):
        folder = Path(info.data_dir)
        if not _unconverted(info):
            return folder
        if not os.access(folder, os.W_OK):
            raise DataError(
                f"{folder} cannot be written. To convert a copy that you may only read, link "
                "it into a directory of yours, `cp -rs DATA_DIR/NAME MY_DIR/`, and give that"
            )
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"data_dir {root} cannot be made: {error}") from error
    base = name.split("/")[0].split(":")[0]
    with (root / f".{base}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system frees the lock of a process that dies
        info = records.find(name, data_dir)
        if info is None:
            manual = Path(manual_dir or root / "downloads" / "manual").expanduser()
            return _generate(name, root, manual, progress)
        _convert(info, progress)  # nothing to do if another process was faster
        return Path(info.data_dir)


def _generate(name: str, root: Path, manual: Path, progress: bool) -> Path:
    """Lets tfds make a data set, which it moves to its place when it is complete."""
    import tensorflow_datasets as tfds

    known = records.builder_class(name)
    try:
        builder = tfds.builder(name, data_dir=root, file_format="array_record")
    except (AssertionError, ValueError):  # with a page of advice
        configs = ", ".join(known.builder_configs) or "none"
        raise DataError(
            f"data set {name!r}: no such config or version; its configs are {configs} and its "
            f"version is {known.VERSION}"
        ) from None
    folder = Path(builder.data_dir)
    if folder.exists():
        raise DataError(
            f"{folder} is in the way: it holds no complete data set. Move it away and prepare again"
        )
    _check_archives(builder.name, manual, builder.MANUAL_DOWNLOAD_INSTRUCTIONS)
    for left in folder.parent.glob("incomplete.*"):  # by a process that was killed
        shutil.rmtree(left)
    (tfds.enable_progress_bar if progress else tfds.disable_progress_bar)()
    config = tfds.download.DownloadConfig(manual_dir=manual)
    try:
        builder.download_and_prepare(download_dir=root / "downloads", download_config=config)
    except (AssertionError, ImportError) as error:  # no manual_dir; packages that few sets need
        raise DataError(f"data set {name!r} cannot be made: {error}") from error
    return folder


def _check_archives(name: str, manual: Path, instructions: str) -> None:
    """Refuses an archive that is missing or cut short, which tfds may not notice."""
    for file, members in ARCHIVES.get(name, {}).items():
        try:
            with tarfile.open(manual / file, "r:") as archive:
                found = str(sum(1 for _ in archive))  # reads the headers only
        except (OSError, tarfile.TarError) as error:
            found = str(error)
        if found != str(members):
            raise DataError(
                f"{manual / file} must be a tar file of {members} files, not: {found}. "
                f"--manual_dir says where it is; {' '.join(instructions.split())}"
            )


def _unconverted(info: Any) -> list[tuple[Path, Path, int]]:
    """Returns (original, ArrayRecord file, number of records) for each file to be converted."""
    files: list[tuple[Path, Path, int]] = []
    for split in info.splits.values():
        targets = records.as_array_record(split).filepaths
        files += zip(split.filepaths, targets, split.shard_lengths, strict=True)
    return [file for file in files if file[2] and not file[1].exists()]


def _convert(info: Any, progress: bool) -> None:
    """Writes an ArrayRecord file beside each TFRecord file that has none yet."""
    from tqdm.contrib.concurrent import thread_map

    files = _unconverted(info)
    if files and info.file_format.value != "tfrecord":
        lost = files[0][1]
        raise DataError(f"{lost.parent} lacks {lost.name}: remove the folder and prepare again")
    options = {"max_workers": cores(), "unit": "file", "disable": not progress}
    thread_map(lambda file: _convert_file(*file), files, **options)


def _convert_file(source: Path, target: Path, expected: int) -> None:
    """Writes the records of a TFRecord file to an ArrayRecord file, under its name when equal."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource
    from tensorflow_datasets.core.file_adapters import ArrayRecordFileAdapter

    part = target.with_name(f".{target.name}.part")
    ArrayRecordFileAdapter.write_examples(part, enumerate(_tfrecords(source)))
    with ArrayRecordDataSource(str(part)) as copy:
        found, same = len(copy), all(map(operator.eq, copy, _tfrecords(source)))
    if found != expected:
        raise DataError(f"{source} holds {found:,} records; dataset_info.json says {expected:,}")
    if not same:
        raise OSError(f"{part} differs from {source} after writing: is the disk sound?")
    part.replace(target)


def _tfrecords(path: Path) -> Iterator[bytes]:
    """Yields the records of a TFRecord file, each checked against its CRC."""
    import tensorflow as tf

    try:
        yield from tf.data.TFRecordDataset(str(path), buffer_size=1 << 20).as_numpy_iterator()
    except (tf.errors.DataLossError, tf.errors.NotFoundError) as error:
        raise DataError(f"{path} cannot be read: {error.message}") from error


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = command_line.parser("python -m inception.data.prepare", __doc__)
    parser.epilog = None  # there is no config
    parser.add_argument("--dataset", required=True, help="tfds's name of the data set, or digits")
    parser.add_argument("--data_dir", default="", help="without it ~/tensorflow_datasets")
    parser.add_argument("--manual_dir", default="", help="with archives you downloaded yourself")
    args = parser.parse_args(argv)
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # before TensorFlow takes the GPU's memory
    folder = prepare(args.dataset, args.data_dir, args.manual_dir, progress=True)
    print(f"{args.dataset!r} is ready in {folder}")


if __name__ == "__main__":
    sys.exit(command_line.run(main))
