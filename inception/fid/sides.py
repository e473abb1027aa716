"""The sets of a command: all is listed and checked before anything is measured."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace

from inception.fid import bridge
from inception.fid.bridge import UserError
from inception.fid.extract import Extractor
from inception.fid.files import Summary, has_images, has_statistics, load
from inception.fid.images import Images, open_images
from inception.fid.metrics import Needs, check_features, check_moments
from inception.fid.pipeline import count_of, measure
from inception.fid.statistics import check_comparable

DEFAULT_PROTOCOL = "tensorflow"


@dataclass(frozen=True)
class Side:
    """One set: statistics from a file, images to measure, or both, as in ADM's references.

    Attributes:
      saved: The content of a file of statistics.
      images: Images that are listed and will be measured.
      count: Number of images that features are computed from or saved of.
      keep: Layers whose features are kept when the images are measured.
    """

    saved: Summary | None
    images: Images | None
    count: int
    keep: Sequence[str]


def open_side(path: str, needs: Needs, args: Namespace) -> Side:
    """Lists a set.

    Args:
      path: What the command line names.
      needs: What the metrics need of it.
      args: The flags protocol, recursive, data_dir and num.

    Raises:
      UserError: If the set is missing, damaged or empty, has fewer images than wanted, or is
        statistics that lack what is needed.
    """
    saved = load(path, args.protocol) if has_statistics(path) else None
    if saved is not None:
        lacks = set(needs.moments) - set(saved.statistics)
        lacks |= set(needs.features) - set(saved.features)
        if not lacks or not has_images(path):
            for layer in needs.moments:
                check_moments(saved, layer)
            for layer in needs.features:
                check_features(saved, layer)
            counts = [len(saved.features[layer]) for layer in needs.features]
            return Side(saved, None, min(counts, default=saved.count), needs.features)
    images = open_images(path, recursive=args.recursive, data_dir=args.data_dir)
    return Side(saved, images, count_of(images, args.num), needs.features)


def open_network(sides: Sequence[Side], layers: Sequence[str], args: Namespace) -> Extractor | None:
    """The network, if a side has images to measure.

    Args:
      sides: All sets.
      layers: Layers to compute.
      args: The flags weights, protocol and precision.

    Raises:
      UserError: If it is needed and not given, or saved statistics were made with another.
    """
    if all(side.images is None for side in sides):
        return None
    if not args.weights:
        raise UserError("images need --weights, such as --weights=fid (docs/fid.md)")
    saved = [side.saved for side in sides if side.saved]
    protocol = args.protocol or next((each.origin.protocol for each in saved), DEFAULT_PROTOCOL)
    extract = Extractor(args.weights, protocol, layers, precision=args.precision)
    for each in saved:
        check_comparable(each.origin, extract.origin(""))
        for layer, d in extract.sizes.items():
            found = len(each.statistics[layer].mean) if layer in each.statistics else d
            if found != d:
                raise UserError(
                    f"{each.path} has {found} features of layer {layer}, and the network {d}: "
                    "name the layer that the file is of, with --layer"
                )
    return extract


def summary_of(side: Side, extract: Extractor | None, args: Namespace) -> Summary:
    """Measures a set where that is needed.

    Args:
      side: The set.
      extract: The network; None if no set has images to measure.
      args: The flags batch_size, num and seed.

    Raises:
      UserError: As `measure` does.
    """
    if side.images is None or extract is None:
        assert side.saved is not None
        return side.saved
    flags = {"batch_size": args.batch_size, "num": args.num, "seed": args.seed}
    measured = measure(side.images, extract, keep=side.keep, **flags)
    if side.saved is None:
        return measured
    # ADM's references have moments of all images, and some of the images.
    return replace(
        side.saved,
        statistics=measured.statistics | side.saved.statistics,
        features=measured.features | side.saved.features,
    )


def cautions_of_network(extract: Extractor | None, weights: str) -> list[str]:
    """Warnings about the network, a sentence each."""
    if extract is None or bridge.is_fids(extract.settings.model):
        return []
    return [
        f"{weights} is not FID's network (1008 outputs): the numbers compare with others of the "
        "same weights only"
    ]
