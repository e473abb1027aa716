"""The commands about published weights: list, download and where."""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tabulate import tabulate

from inception.data.paths import local_path
from inception.errors import UserError
from inception.weights import hub, locate, registry
from inception.weights.registry import REGISTRY, Published


def add(commands: Any) -> None:
    """Adds the commands to a parser's."""
    commands.add_parser("list", help=_list.__doc__).set_defaults(run=_list)
    download = commands.add_parser("download", help=_download.__doc__)
    download.add_argument("name", metavar="NAME")
    download.add_argument("--output", metavar="PATH", type=local_path, help="also copies it there")
    download.set_defaults(run=_download)
    where = commands.add_parser("where", help=_where.__doc__)
    where.add_argument("name", metavar="NAME")
    where.set_defaults(run=_where)


def _list(args: argparse.Namespace) -> None:
    """List the published weights, and which are on this machine."""
    print(table(list(REGISTRY.values())))


def table(all_published: list[Published]) -> str:
    """One line for each."""
    rows = [
        (
            published.name,
            size(published),
            published.classes or "none",
            f"{published.top1:.2f} / {published.top5:.2f}" if published.top1 else "",
            published.crop,
            published.license,
            "yes" if locate.where(published) else "",
        )
        for published in all_published
    ]
    headers = ("name", "size", "classes", "top-1 / top-5", "with this crop", "license", "here")
    align = ("left", "right", "right", "left", "left", "left", "left")
    return tabulate(rows, headers, "plain", colalign=align, disable_numparse=True)


def size(published: Published) -> str:
    """The size in megabytes: "~" marks an estimate, "?" an unknown size."""
    if not (published.size or published.about):
        return "?"
    exact = "" if published.size else "~"
    return f"{exact}{(published.size or published.about) / 1e6:.0f} MB"


def _download(args: argparse.Namespace) -> None:
    """Get a file by name, once."""
    published, output = registry.get(args.name), args.output
    if output and output.exists():
        raise UserError(f"--output={output} exists and is not overwritten: name another path")
    path = locate.locate(published, refresh=True)
    if output:
        _copy(published, path, output)
    print(output or path)


def _copy(published: Published, path: Path, output: Path) -> None:
    """Copies a file, or the files of a repository into a folder; all or nothing."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".copying-") as scratch:
        complete = Path(scratch) / output.name
        if snapshot := hub.known(published) if published.repository else None:
            complete.mkdir()
            for file in snapshot.files:
                shutil.copyfile(path.with_name(file.path.name), complete / file.path.name)
        else:
            shutil.copyfile(path, complete)
        complete.rename(output)


def _where(args: argparse.Namespace) -> int:
    """Print the path of a file; the status is 1 if it is not on this machine."""
    published = registry.get(args.name)
    if path := locate.where(published):
        print(path)
        return 0
    origin = published.urls[0] if published.urls else f"{hub.address(published)}"
    raise UserError(f"{args.name} is not on this machine. It would be downloaded from {origin}")
