"""Prepares a data set for training, once, as ArrayRecord files in tfds's layout.

    python -m inception.data.prepare --dataset=imagenet2012 --data_dir=D --manual_dir=M

Not there yet: tfds makes it, from the files in `manual_dir` or a download. There as TFRecord, made
by somebody else: every file is converted to an ArrayRecord file beside it, compared record by
record, and the original is left as it is. There already: nothing is done.

It can be stopped and started again at any time, and started twice at once: a data set appears
under its name only when it is complete, a converted file only when it was compared.
"""

import contextlib
import fcntl
import io
import operator
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from inception import command_line
from inception.data import DataError, DataNotFound, records

# The archives that image-net.org gives after registration: how many files are in each.
_IMAGENET_TARS = {"ILSVRC2012_img_train.tar": 1000, "ILSVRC2012_img_val.tar": 50_000}
ARCHIVES = {
    "imagenet2012": _IMAGENET_TARS,
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
        DataError: unknown data set, a directory that cannot be written or is taken, or a TFRecord
            copy that is damaged.
        DataNotFound: archives that are missing or cut short.
    """
    if name in ("folder", "fake"):
        raise DataError(f"data set {name!r} needs no preparation")
    if (info := _finished(name, data_dir)) is not None:
        return Path(info.data_dir)
    root = records.data_root(data_dir)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"data_dir {root} cannot be made: {error.strerror}") from error
    _require_writable(root)
    label = name.replace("/", "-").replace(":", "-")
    with _lock(root / f".{label}.lock"):
        info = records.find(name, data_dir)
        if info is not None:
            convert(info, progress=progress)  # nothing to do if another process was faster
            return Path(info.data_dir)
        manual = Path(manual_dir or root / "downloads" / "manual").expanduser()
        staging = root / f".{label}.incomplete"
        return _generate(name, root, manual, staging, progress)


def convert(info: Any, *, progress: bool = False) -> None:
    """Writes an ArrayRecord file beside each TFRecord file of a data set, and compares them.

    Files that an earlier, interrupted conversion finished are kept. The TFRecord files and the
    metadata are only read.

    Raises:
        DataError: a file is damaged, or holds another number of records than the metadata say.
    """
    from tqdm.contrib.concurrent import thread_map

    folder = Path(info.data_dir)
    files = _unconverted(info)
    if not files:
        return
    if info.file_format.value != "tfrecord":
        raise DataError(f"{folder} lacks {files[0][1].name}: remove the folder and prepare again")
    _require_writable(folder)
    for part in folder.glob(".*.part"):
        part.unlink()  # of a process that was killed: the lock says that nobody writes it
    print(f"converting {len(files)} TFRecord files in {folder}", flush=True)
    options = {"max_workers": os.cpu_count(), "unit": "file", "disable": not progress}
    thread_map(lambda file: _convert_file(*file), files, **options)


def _finished(name: str, data_dir: str) -> Any:
    """Returns the DatasetInfo of a data set whose ArrayRecord files are all there, else None."""
    info = records.find(name, data_dir)
    return None if info is None or _unconverted(info) else info


def _require_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK):
        raise DataError(
            f"{folder} cannot be written. To convert a copy that you may only read, link it into a "
            f"directory of yours, `cp -rs DATA_DIR/NAME MY_DIR/`, and give --data_dir=MY_DIR"
        )


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Lets one process at a time pass; the system frees the lock of a process that dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _generate(name: str, root: Path, manual: Path, staging: Path, progress: bool) -> Path:
    """Lets tfds make a data set in `staging`, and moves it to its place when it is complete."""
    import tensorflow_datasets as tfds

    known = records.builder_class(name)
    shutil.rmtree(staging, ignore_errors=True)  # what a killed process left
    try:
        builder = tfds.builder(name, data_dir=staging, file_format="array_record")
    except (AssertionError, ValueError):  # with a page of advice
        configs = ", ".join(known.builder_configs) or "none"
        raise DataError(
            f"data set {name!r}: no such config or version; its configs are {configs} and its "
            f"version is {known.VERSION}"
        ) from None
    made = Path(builder.data_dir)
    final = root / made.relative_to(staging)
    if final.exists() and any(final.iterdir()):
        raise DataError(
            f"{final} is in the way: it holds no complete data set. Move it away and prepare again"
        )
    _check_manual_files(name, manual, builder.MANUAL_DOWNLOAD_INSTRUCTIONS)
    print(f"preparing data set {name!r} in {root}", flush=True)
    (tfds.enable_progress_bar if progress else tfds.disable_progress_bar)()
    config = tfds.download.DownloadConfig(manual_dir=manual)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # tfds names the staging folder as final
            builder.download_and_prepare(download_dir=root / "downloads", download_config=config)
    except ImportError as error:  # some data sets need packages that the others do without
        raise DataError(f"data set {name!r} cannot be made: {error}") from error
    final.parent.mkdir(parents=True, exist_ok=True)
    made.rename(final)
    shutil.rmtree(staging)
    return final


def _check_manual_files(name: str, manual: Path, instructions: str | None) -> None:
    """Raises DataNotFound unless what the user must bring is there and complete."""
    archives = ARCHIVES.get(name.split(":")[0], {})
    problems = [
        problem
        for file, members in archives.items()
        if (problem := _archive_problem(manual / file, members))
    ]
    if instructions and not manual.is_dir():
        problems = [f"{manual} is not a folder"]
    if problems:
        raise DataNotFound(
            f"data set {name!r} cannot be prepared:\n  "
            + "\n  ".join(problems)
            + f"\n{' '.join((instructions or '').split())}\n--manual_dir says where they are."
        )


def _archive_problem(path: Path, members: int) -> str:
    """Returns what is wrong with a tar file, or ""; reads only the headers of its members."""
    try:
        with tarfile.open(path, "r:") as archive:
            found = sum(1 for _ in archive)
    except FileNotFoundError:
        return f"{path} is missing"
    except (OSError, tarfile.TarError) as error:
        return f"{path} ({path.stat().st_size:,} bytes) is no complete tar file: {error}"
    return "" if found == members else f"{path} holds {found:,} files instead of {members:,}"


def _unconverted(info: Any) -> list[tuple[Path, Path, int]]:
    """Returns (original, ArrayRecord file, number of records) for each file to be converted."""
    files: list[tuple[Path, Path, int]] = []
    for split in info.splits.values():
        targets = records.as_array_record(split).filepaths
        files += zip(split.filepaths, targets, split.shard_lengths, strict=True)
    return [file for file in files if file[2] and not file[1].exists()]


def _convert_file(source: Path, target: Path, expected: int) -> None:
    """Writes the records of a TFRecord file to an ArrayRecord file, under its name when equal."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource
    from array_record.python.array_record_module import ArrayRecordWriter

    part = target.with_name(f".{target.name}.part")
    writer, written = ArrayRecordWriter(str(part), "group_size:1"), 0
    try:
        for record in _tfrecords(source):
            writer.write(record)
            written += 1
    finally:
        writer.close()
    if written != expected:
        raise DataError(f"{source} holds {written:,} records; dataset_info.json says {expected:,}")
    with ArrayRecordDataSource(str(part)) as copy:
        same = len(copy) == written and all(map(operator.eq, copy, _tfrecords(source)))
    if not same:
        raise OSError(f"{part} differs from {source} after writing: is the disk sound?")
    part.replace(target)


def _tfrecords(path: Path) -> Iterator[bytes]:
    """Yields the records of a TFRecord file, each checked against its CRC."""
    import tensorflow as tf

    try:
        for record in tf.data.TFRecordDataset(str(path), buffer_size=1 << 20):
            yield bytes(record.numpy())
    except (tf.errors.DataLossError, tf.errors.NotFoundError) as error:
        raise DataError(f"{path} cannot be read: {error.message}") from error


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = command_line.parser("python -m inception.data.prepare", __doc__)
    parser.epilog = None  # there is no config
    parser.add_argument("--dataset", required=True, help="tfds's name of the data set, or digits")
    parser.add_argument(
        "--data_dir", default="", help="where data sets lie; without it ~/tensorflow_datasets"
    )
    parser.add_argument(
        "--manual_dir", default="", help="where the archives lie that you downloaded yourself"
    )
    args = parser.parse_args(argv)
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # before TensorFlow takes the GPU's memory
    if (info := _finished(args.dataset, args.data_dir)) is not None:
        print(f"nothing to do: {args.dataset!r} is complete in {info.data_dir}")
        return
    folder = prepare(args.dataset, args.data_dir, args.manual_dir, progress=True)
    print(f"{args.dataset!r} is ready in {folder}")


if __name__ == "__main__":
    sys.exit(command_line.run(main))
