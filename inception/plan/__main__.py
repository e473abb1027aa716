"""Plans a run on TPUs or GPUs that are not here; this machine is not examined.

    python -m inception.plan --config=configs/v3.py --topology=v5e:4x4 [--table=docs/scaling.md]

The topology is one of v4:2x2x1, v5e:4x4, v5p:2x2x1, v6e:4x4 (needs `pip install "jax[tpu]"`), h100,
h100:8, h200, a100, l4, b200 (needs `pip install "jax[cuda13]"`). The run's own step is compiled for
it, which takes minutes. --table writes what the same step does on 1 to 256 such chips into a
Markdown file. Nothing of a plan is measured.
"""

import sys
from collections.abc import Sequence

from inception import command_line
from inception.config import load
from inception.doctor.findings import show
from inception.plan.absent import check_installed, parse_topology
from inception.plan.table import write_table
from inception.plan.topology import Plan, rows
from inception.workdir.files import local_path
from inception.workdir.logbook import log


def examine(run: Plan, table: str | None = None) -> bool:
    """Prints the rows of a plan, and writes its table into a file if there is one to write.

    Returns:
      Whether the run fits on the topology.
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
    parser.add_argument("--topology", required=True, help="absent chips, such as v5e:4x4 or h100")
    parser.add_argument("--table", type=local_path, help="a Markdown file for the plan's table")
    args, overrides = command_line.parse(parser, argv)
    config, topology = load(args.config, overrides), parse_topology(args.topology)
    check_installed(topology)
    fits = examine(Plan(config, topology), args.table)
    log("\nThe run would fit." if fits else "\nThe run would not fit.")
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(command_line.run(main, command_line.SMALLER_BATCH))
