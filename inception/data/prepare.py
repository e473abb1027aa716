"""Prepares a data set for training, once, as ArrayRecord files in tfds's layout.

    python -m inception.data.prepare --dataset=imagenet2012 --data_dir=D --manual_dir=M

If the data set is missing, tfds makes it, from the files in `manual_dir` or a download. If it is
there as TFRecord files, made by somebody else, each is converted to an ArrayRecord file next to it
and compared record by record; the originals stay. If it is there as ArrayRecord, nothing is done.

The four .gz files of mnist, fashion_mnist or kmnist may be in `manual_dir` too, compressed by
anybody (Debian's package dataset-fashion-mnist has them in /usr/share/datasets/fashion-mnist): then
nothing is downloaded.

The command can be interrupted and repeated at any time, and run twice at once: a data set gets its
name only when it is complete, a converted file only after the comparison.
"""

import contextlib
import fcntl
import gzip
import io
import operator
import os
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from inception import command_line
from inception.data import DataError, records
from inception.data.paths import local_path
from inception.ops.platforms import cores

# The archives from image-net.org (after registration), and the number of files in each.
ARCHIVES = {
    "imagenet2012": {"ILSVRC2012_img_train.tar": 1000, "ILSVRC2012_img_val.tar": 50_000},
    "imagenet2012_real": {"ILSVRC2012_img_val.tar": 50_000},
}


def prepare(
    name: str, data_dir: str = "", manual_dir: str | Path = "", *, progress: bool = False
) -> Path:
    """Makes sure that a tfds data set is in `data_dir` as ArrayRecord files.

    tfds may import TensorFlow to make a data set, and TensorFlow takes a GPU's memory: hide the
    GPUs from it first, as `main` does.

    Args:
        name: Name of a tfds data set, such as "imagenet2012" or "imagenet_v2/topimages", or
            "digits".
        data_dir: Directory of data sets; empty for tfds's default, ~/tensorflow_datasets.
        manual_dir: Directory of archives that must be downloaded by hand.
        progress: Whether to show progress bars and tfds's messages.

    Returns:
        The data set's folder.

    Raises:
        DataError: For an unknown data set, missing or truncated archives, a folder that cannot be
            written or exists but is incomplete, or a damaged TFRecord copy.
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
                f"{folder} cannot be written. To convert a read-only copy, link it into a "
                "directory of yours, `cp -rs DATA_DIR/NAME MY_DIR/`, and give that directory"
            )
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"data_dir {root} cannot be created: {error}") from error
    base = name.split("/")[0].split(":")[0]
    with (root / f".{base}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the system if this process dies
        info = records.find(name, data_dir)
        if info is None:
            manual = local_path(manual_dir or root / "downloads" / "manual")
            return _generate(name, root, manual, progress)
        _convert(info, progress)  # unless another process has done it by now
        return Path(info.data_dir)


def _generate(name: str, root: Path, manual: Path, progress: bool) -> Path:
    """Lets tfds make a data set, which gets its name when it is complete."""
    import tensorflow_datasets as tfds

    known = records.builder_class(name)
    try:
        builder = _builder_of_files(known, root, manual) or tfds.builder(
            name, data_dir=root, file_format="array_record"
        )
    except (AssertionError, ValueError):  # whose messages fill a page
        configs = ", ".join(known.builder_configs) or "none"
        raise DataError(
            f"data set {name!r}: no such config or version; its configs are {configs} and its "
            f"version is {known.VERSION}"
        ) from None
    folder = Path(builder.data_dir)
    if folder.exists():
        raise DataError(
            f"{folder} exists but is incomplete. Move it away and prepare the data set again"
        )
    _check_archives(builder.name, manual, builder.MANUAL_DOWNLOAD_INSTRUCTIONS)
    for leftover in folder.parent.glob("incomplete.*"):  # of a process that was killed
        shutil.rmtree(leftover)
    (tfds.enable_progress_bar if progress else tfds.disable_progress_bar)()
    config = tfds.download.DownloadConfig(manual_dir=manual)
    quiet = contextlib.nullcontext() if progress else contextlib.redirect_stdout(io.StringIO())
    try:
        with quiet:  # tfds prints download sizes even where it downloads nothing
            builder.download_and_prepare(download_dir=root / "downloads", download_config=config)
    except (AssertionError, ImportError) as error:  # no manual_dir; a package of this data set
        raise DataError(f"data set {name!r} cannot be made: {error}") from error
    return folder


def _builder_of_files(known: Any, root: Path, manual: Path) -> Any:
    """A builder that reads the .gz files of a data set in `manual`; None unless all are there.

    tfds knows digests of the compressed files only, and other copies of MNIST and its like are
    compressed with other headers. The checksum of the content in each file is verified.
    """
    files = [info.filename or "" for info in (known.url_infos or {}).values()]
    if not files or not all(file.endswith(".gz") and (manual / file).exists() for file in files):
        return None
    unpacked = tempfile.TemporaryDirectory(prefix="inception-prepare-")

    class Files:
        def download_and_extract(self, urls: dict[str, str]) -> dict[str, Path]:
            return {name: _unpack(manual / Path(url).name, unpacked) for name, url in urls.items()}

    class Builder(known, skip_registration=True):  # type: ignore[call-arg]
        name = known.name

        def _split_generators(self, _):
            return super()._split_generators(Files())

    return Builder(data_dir=root, file_format="array_record")


def _unpack(file: Path, folder: tempfile.TemporaryDirectory) -> Path:
    target = Path(folder.name, file.stem)
    try:
        with gzip.open(file) as packed, target.open("wb") as plain:
            shutil.copyfileobj(packed, plain)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read: {error}. Copy it again") from error
    return target


def _check_archives(name: str, manual: Path, instructions: str) -> None:
    """Refuses missing and truncated archives, which tfds may not notice."""
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
    """Writes an ArrayRecord file next to each TFRecord file that has none yet."""
    from tqdm.contrib.concurrent import thread_map

    files = _unconverted(info)
    if files and info.file_format.value != "tfrecord":
        lost = files[0][1]
        raise DataError(f"{lost.parent} lacks {lost.name}: remove the folder and prepare again")
    options = {"max_workers": cores(), "unit": "file", "disable": not progress}
    thread_map(lambda file: _convert_file(*file), files, **options)


def _convert_file(source: Path, target: Path, expected: int) -> None:
    """Converts a TFRecord file; the ArrayRecord file gets its name when its records are equal."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource
    from tensorflow_datasets.core.file_adapters import ArrayRecordFileAdapter

    part = target.with_name(f".{target.name}.part")
    ArrayRecordFileAdapter.write_examples(part, enumerate(_tfrecords(source)))
    with ArrayRecordDataSource(str(part)) as copy:
        found, same = len(copy), all(map(operator.eq, copy, _tfrecords(source)))
    if found != expected:
        raise DataError(f"{source} contains {found:,} records; dataset_info.json says {expected:,}")
    if not same:
        raise OSError(f"{part} differs from {source} after writing: check the disk for errors")
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
    parser.add_argument("--data_dir", default="", help="default: ~/tensorflow_datasets")
    parser.add_argument(
        "--manual_dir", type=local_path, help="directory of archives you downloaded"
    )
    args = parser.parse_args(argv)
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # before TensorFlow takes the GPUs' memory
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # nor its start-up messages
    folder = prepare(args.dataset, args.data_dir, args.manual_dir or "", progress=True)
    print(f"{args.dataset!r} is ready in {folder}")


if __name__ == "__main__":
    sys.exit(command_line.run(main))
