"""Examines a machine, its data and a config before a run of days is started.

    python -m inception.doctor --config=configs/v3.py [--config.FIELD=VALUE ...] [--workdir=DIR]

Prints a row per check: PASS, WARN (it would run, but look at this) or FAIL (it could not start),
with what to do below it; exits with status 1 after a FAIL. Nothing is measured before all that it
needs has passed. The input is measured on the run's own data, the step on made-up batches that lie
on the devices: without data, --config.dataset=fake examines all the rest.

On a CPU a step of a large batch takes minutes and more memory than there is: there the step is
measured with a smaller one and its memory is scaled, and the rows say so. Nothing is left in the
workdir. One process is examined, its devices against its own input.

    python -m inception.doctor --config=configs/v3.py --topology=v5e:4x4 [--table=docs/scaling.md]

plans the run for chips that are not here, and does not examine this machine: v4:2x2x1, v5e:4x4,
v5p:2x2x1, v6e:4x4 (needs `pip install "jax[tpu]"`), h100, h100:8, h200, a100, l4, b200 (needs
`pip install "jax[cuda13]"`). The step is compiled for them, which takes minutes. --table writes
what the same step does on 1 to 256 such chips into a Markdown file. Nothing of a plan was measured.
"""

import sys
import textwrap
from collections.abc import Sequence

from inception import command_line, processes
from inception.config import load
from inception.doctor.absent import check_installed, parse_topology
from inception.doctor.checks import STAGES, Check, Finding, PlannedRun
from inception.doctor.table import write_table
from inception.doctor.topology import Plan, rows
from inception.errors import UserError
from inception.files import local_path
from inception.logbook import log


def attempt(check: Check, run: PlannedRun) -> Finding:
    """Makes one check; what it raises is a failure."""
    try:
        return check(run)
    except (UserError, ValueError, OSError, ImportError, RuntimeError) as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            advice = "raise config.accumulation_steps, or use a smaller batch_size"
            return Finding("the devices' memory does not suffice", advice, "FAIL")
        return Finding(str(error), status="FAIL")


def examine(run: PlannedRun) -> bool:
    """Makes the checks, stage by stage, and prints a row for each as soon as it is known.

    Returns:
      Whether none failed. What comes after a stage with a failure is left out.
    """
    failures: list[Finding] = []
    for stage in STAGES:
        for check in stage:
            finding = attempt(check, run)
            known = finding in failures
            failures += [finding] if finding.status == "FAIL" else []
            show(check.__name__, finding._replace(text="as above") if known else finding)
        if failures:
            return False
    return True


def plan(run: Plan, table: str | None = None) -> bool:
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


def show(name: str, finding: Finding) -> None:
    """Prints a row, with what to do below it."""
    advice = [f"-> {line}" for line in finding.advice.splitlines()]
    cell = textwrap.indent("\n".join([finding.text, *advice]), " " * 23).lstrip()
    log(f"{finding.status:6}{name.replace('_', ' '):17}{cell}")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table of the config that the command line names."""
    parser = command_line.parser("python -m inception.doctor", __doc__, config=True)
    parser.add_argument("--config", required=True, help="a file such as configs/v3.py")
    parser.add_argument("--workdir", help="where the run will be kept; it may be in a bucket")
    parser.add_argument("--topology", help="plan for absent chips, such as v5e:4x4 or h100")
    parser.add_argument(
        "--table", type=local_path, help="a Markdown file for the plan's table; with --topology"
    )
    args, overrides = command_line.parse(parser, argv)
    if args.table and not args.topology:
        parser.error("--table needs a --topology")
    config = load(args.config, overrides)
    if args.topology:
        topology = parse_topology(args.topology)
        check_installed(topology)
        good = plan(Plan(config, topology), args.table)
        log("\nThe run would fit." if good else "\nThe run would not fit.")
        return 0 if good else 1
    processes.keep_memory()  # as main.py, whose step is measured
    good = examine(PlannedRun(config, args.workdir))
    log("\nThe run can start." if good else "\nThe run could not start.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(command_line.run(main, command_line.SMALLER_BATCH))
