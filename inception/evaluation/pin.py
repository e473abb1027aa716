"""Measures the published files of weights, on a machine with internet.

    python -m inception.evaluation.pin [NAME ...] [--images=FOLDER]

This downloads every file, or those of the given names,
prints the sizes and digests that weights/registry.py lacks, compares our network with the original
library's where that is installed, and evaluates on ImageNet's validation images, which are in
FOLDER/ID/FILE.JPEG with an ID such as n01440764. The status is 1 if a file cannot be had or read.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from inception import command_line
from inception.data.decode import SUFFIXES
from inception.data.paths import local_path
from inception.errors import UserError
from inception.predict.predictor import Predictor, has_answer
from inception.weights import cache, hub, locate, registry, verify
from inception.weights.files import WeightsError
from inception.weights.labels import imagenet_names
from inception.weights.pretrained import Pretrained
from inception.weights.registry import REGISTRY, Published


@dataclass(frozen=True)
class Result:
    """The measurements of a file.

    Attributes:
      published: Its row in the registry.
      size: Bytes.
      sha256: SHA-256 of the file.
      commit: Commit of the repository, "" for a file.
      difference: Largest relative difference from the original library's endpoints, or the reason
        why it was not measured.
      top1: Top-1 accuracy in percent; None if it was not measured.
      top5: Top-5 accuracy in percent; None if it was not measured.
      images: Number of images.
      problem: Reason why the file could not be downloaded or read, "" if it could.
    """

    published: Published
    size: int = 0
    sha256: str = ""
    commit: str = ""
    difference: str = ""
    top1: float | None = None
    top5: float | None = None
    images: int = 0
    problem: str = ""


def examine(published: Published, images: Path | None = None) -> Result:
    """Downloads, reads, compares and evaluates.

    Args:
      published: The weights.
      images: Folder of ImageNet's validation images, in folders named by WordNet ids.
    """
    try:
        path = locate.locate(published, refresh=True)
        loaded = locate.load(published)
        snapshot = hub.known(published) if published.repository else None
        right, count = evaluate(loaded, images) if images else (None, 0)
        top1, top5 = (100 * right).tolist() if right is not None else (None, None)
        return Result(
            published,
            path.stat().st_size,
            cache.digest(path),
            snapshot.commit if snapshot else "",
            _difference(published, loaded),
            top1,
            top5,
            count,
        )
    except (UserError, OSError) as error:
        return Result(published, problem=str(error))


def _difference(published: Published, loaded: Pretrained) -> str:
    try:
        with locate.opened(published) as path:
            differences = verify.verify(loaded, path)
    except WeightsError as error:
        return str(error)
    return f"{max(difference.relative for difference in differences):.1e}"


def evaluate(loaded: Pretrained, folder: Path) -> tuple[np.ndarray | None, int]:
    """The shares of images whose class is the first answer, and is among the first five.

    Args:
      loaded: Weights of ImageNet's 1000 classes, in WordNet's order; others are not evaluated.
      folder: Folder with a folder of images for each class, named by its WordNet id.

    Raises:
      UserError: If there are no such images.
    """
    ids = {wordnet: number for number, wordnet in enumerate(imagenet_names())}
    if loaded.model.num_classes != len(ids):
        return None, 0
    files = sorted(path for path in folder.glob("n*/*") if path.suffix.lower() in SUFFIXES)
    files = [path for path in files if path.parent.name in ids]
    if not files:
        raise UserError(
            f"--images={folder} does not contain images ID/FILE.JPEG, e.g. n01440764/1.JPEG"
        )
    predictor = Predictor(loaded.model, loaded.variables, loaded.preprocessing)
    right, seen = np.zeros(2), 0
    for index, outputs in predictor.stream([str(path) for path in files]):
        classes = np.array([ids[files[number].parent.name] for number in index])
        logits = outputs["logits"]
        best = np.argsort(-logits, axis=-1, kind="stable")[:, :5] == classes[:, None]
        best &= np.asarray(has_answer(logits))[:, None]
        right += (best[:, 0].sum(), best.any(-1).sum())
        seen += len(index)
    return right / seen, seen


def lines(results: list[Result]) -> str:
    """The sizes, digests and commits that registry.py lacks or states otherwise, one line each."""
    rows = []
    for result in results:
        published = result.published
        known = (published.size, published.sha256, published.revision)
        found = (result.size, result.sha256, result.commit or published.revision)
        if not result.problem and known != found:
            revision = f", revision={result.commit!r}" if result.commit else ""
            rows.append(
                f"{published.name}: size={result.size:_}, sha256={result.sha256!r}{revision}"
            )
    return "\n".join(rows) or "registry.py lacks nothing"


def table(results: list[Result]) -> str:
    """The results as a Markdown table."""

    def percent(first: float | None, fifth: float | None) -> str:
        return f"{first:.2f} / {fifth:.2f}" if first else ""

    rows = [
        (
            result.published.name,
            f"{result.size:,}",
            result.problem or result.difference,
            percent(result.published.top1, result.published.top5),
            percent(result.top1, result.top5),
            f"{result.images:,}",
        )
        for result in results
    ]
    headers = ("name", "bytes", "difference from the original", "published", "here", "images")
    return tabulate(rows, headers, "github", disable_numparse=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Examines what the command line names, and prints what was found out."""
    parser = command_line.parser("python -m inception.evaluation.pin", __doc__)
    parser.add_argument("--images", metavar="FOLDER", type=local_path)
    parser.add_argument("names", metavar="NAME", nargs="*", help="only these (all)")
    args, _ = command_line.parse(parser, argv)
    wanted = [registry.get(name) for name in args.names] or list(REGISTRY.values())
    results = [examine(published, args.images) for published in wanted]
    print(lines(results), table(results), sep="\n\n")
    return int(any(result.problem for result in results))


if __name__ == "__main__":
    sys.exit(command_line.run(main))
