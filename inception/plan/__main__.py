"""Plans a run on TPUs or GPUs that this machine does not have.

    python -m inception.plan --config=configs/v3.py --topology=v5e:4x4 [--table=docs/scaling.md]

Topologies: v4:2x2x1, v5e:4x4, v5p:2x2x1, v6e:4x4 and the like (they need `pip install "jax[tpu]"`);
a100, h100, h200, l4, b200, and several of one host, such as h100:8 (`pip install "jax[cuda13]"`).

The run's training step is compiled for the topology, which takes minutes; everything else is
computed from the program and from the chips' published speeds. Nothing is measured on them. --table
writes what the same step does on 1 to 256 such chips into a Markdown file.
"""

import sys
from collections.abc import Sequence

from inception import command_line
from inception.config import load
from inception.data.paths import local_path
from inception.doctor.findings import show
from inception.plan.rows import Plan, rows
from inception.plan.table import write_table
from inception.plan.topology import check_installed, parse_topology
from inception.workdir.logbook import log


def examine(run: Plan, table: str | None = None) -> bool:
    """Prints the rows of a plan, and writes its table into the file `table`, if given.

    Returns:
      Whether the run fits into the chips' memory.
    """
    fits = True
    for name, finding in rows(run):
        show(name, finding)
        fits = fits and finding.status != "FAIL"
    if table and fits:
        write_table(run, table)
        log(f"      wrote {table}")
    return fits


def main(argv: Sequence[str] | None = None) -> int:
    """Plans the run that the command line names."""
    parser = command_line.parser("python -m inception.plan", __doc__, config=True)
    parser.add_argument("--config", required=True, help="a file such as configs/v3.py")
    parser.add_argument("--topology", required=True, help="chips, such as v5e:4x4 or h100")
    parser.add_argument("--table", type=local_path, help="a Markdown file with marks for the table")
    args, overrides = command_line.parse(parser, argv)
    config, topology = load(args.config, overrides), parse_topology(args.topology)
    check_installed(topology)
    fits = examine(Plan(config, topology), args.table)
    log("\nThe run would fit." if fits else "\nThe run would not fit.")
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(command_line.run(main, command_line.SMALLER_BATCH))
