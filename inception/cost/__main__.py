"""Counts parameters, multiply-adds and activations of every stage of a network.

    python -m inception.cost --config=configs/v3.py [--config=... more] [--config.FIELD=VALUE ...]
        [--num_classes=1000] [--plot=architecture.png]

Prints a table for each config with the paper's number below it and, for several configs, a table
that compares them. --plot draws the architecture of the first. inception/cost/counting.py says what
is counted.
"""

import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict
from tabulate import tabulate

from inception import command_line
from inception.config import load
from inception.cost.counting import NetworkCost, count_network, format_shape
from inception.data.paths import local_path
from inception.errors import UserError
from inception.paper import COSTS, ReportedCost


def reported_cost(path: str, config: ConfigDict) -> ReportedCost | None:
    """The paper's number for a config file's network, unless overrides changed the network."""
    original = load(path)
    same = (config.model, config.image_size) == (original.model, original.image_size)
    return COSTS.get(Path(path).stem) if same else None


def stage_table(network: NetworkCost) -> str:
    """A row for each stage, then the sums without and with the auxiliary head."""
    lines = [*network.stages, network.total]
    if network.aux_head:
        lines += [network.aux_head, network.total_with_aux_head]
    table = [
        {
            "stage": stage.name,
            "layer": stage.kind,
            "output": format_shape(*stage.shape),
            "parameters": f"{stage.parameters:,}",
            "multiply-adds": f"{stage.multiply_adds / 1e6:,.1f} M",
            "activations": f"{stage.activation_bytes / 1e6:.2f} MB",
        }
        for stage in lines
    ]
    align = ("left", "left", "right", "right", "right", "right")
    return tabulate(table, "keys", "plain", colalign=align, disable_numparse=True)


def comparison(networks: Mapping[str, NetworkCost], paper: Mapping[str, ReportedCost]) -> str:
    """A row for each network, by name: its costs without the auxiliary head, and the paper's."""
    first = next(iter(networks.values())).total
    table = [
        {
            "config": name,
            "parameters": f"{network.total.parameters:,}",
            "multiply-adds": f"{network.total.multiply_adds / 1e9:.3f} G",
            "ratio": f"{network.total.multiply_adds / first.multiply_adds:.3f}",
            "paper": paper[name].multiply_adds if name in paper else "-",
        }
        for name, network in networks.items()
    ]
    align = ("left", "right", "right", "right", "right")
    return tabulate(table, "keys", "plain", colalign=align, disable_numparse=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables of the given configs, and draws the picture."""
    parser = command_line.parser("python -m inception.cost", __doc__, config=True)
    parser.add_argument("--config", required=True, action="append", help="a file; may be repeated")
    parser.add_argument("--num_classes", type=int, default=1000, help="logits (%(default)s)")
    parser.add_argument(
        "--plot", metavar="FILE.png", type=local_path, help="draws the first config's architecture"
    )
    args, overrides = command_line.parse(parser, argv)
    networks, paper = {}, {}
    for path in args.config:
        config, name = load(path, overrides), Path(path).stem
        try:
            networks[name] = count_network(config, args.num_classes)
        except ValueError as error:
            raise UserError(str(error)) from error
        print(f"{path}: {format_shape(*networks[name].image)}, {config.dtype}\n")
        print(stage_table(networks[name]) + "\n")
        if reported := reported_cost(path, config):
            paper[name] = reported
            print(textwrap.fill(reported.remark, 100) + "\n")
    if len(networks) > 1:
        print(comparison(networks, paper))
    if args.plot:
        import matplotlib  # takes a second and serves only this

        from inception.cost import diagram

        name, network = next(iter(networks.items()))
        with matplotlib.rc_context(
            {"svg.fonttype": "none"}
        ):  # text stays text, a third of the size
            diagram.draw(network, name).savefig(args.plot)
        print(f"{args.plot}: the architecture of {name}")


if __name__ == "__main__":
    sys.exit(command_line.run(main))
