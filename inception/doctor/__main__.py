"""Examines a machine, its data and a config before a run of days is started.

    python -m inception.doctor --config=configs/v3.py [--config.FIELD=VALUE ...] [--workdir=DIR]

Prints a row per check: PASS, WARN (it would run, but look at this) or FAIL (it could not start),
with what to do below it; exits with status 1 after a FAIL. Nothing is measured before all that it
needs has passed. The input is measured on the run's own data, the step on made-up batches that lie
on the devices: without data, --config.dataset=fake examines all the rest.

On a CPU a step of a large batch takes minutes and more memory than there is: there the step is
measured with a smaller one and its memory is scaled, and the rows say so. Nothing is left in the
workdir. One process is examined, its devices against its own input.
"""

import sys
import textwrap
from collections.abc import Iterator, Sequence

from inception import command_line
from inception.config import load
from inception.doctor.checks import STAGES, Check, Finding, PlannedRun
from inception.errors import UserError
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


def examine(run: PlannedRun) -> Iterator[tuple[str, Finding]]:
    """Makes the checks, stage by stage, up to the first stage that does not pass.

    Yields:
      The name of each check and what it found, as soon as it is known.
    """
    failures: list[Finding] = []
    for stage in STAGES:
        for check in stage:
            finding = attempt(check, run)
            if finding.status == "FAIL":
                known, failures = finding in failures, [*failures, finding]
                finding = finding._replace(text="as above") if known else finding
            yield check.__name__.replace("_", " "), finding
        if failures:
            return


def format_row(name: str, finding: Finding) -> str:
    """A line of the table, and the advice below it."""
    lines = [*finding.text.splitlines(), *(f"-> {line}" for line in finding.advice.splitlines())]
    return f"{finding.status:6}{name:17}" + textwrap.indent("\n".join(lines), " " * 23).lstrip()


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table of the config that the command line names."""
    parser = command_line.parser("python -m inception.doctor", __doc__)
    parser.add_argument("--config", required=True, help="a file such as configs/v3.py")
    parser.add_argument("--workdir", help="where the run will be kept; it may be in a bucket")
    args, overrides = command_line.parse(parser, argv)
    failed = False
    for name, finding in examine(PlannedRun(load(args.config, overrides), args.workdir)):
        log(format_row(name, finding))
        failed = failed or finding.status == "FAIL"
    log("\nThe run could not start." if failed else "\nThe run can start.")
    return int(failed)


if __name__ == "__main__":
    sys.exit(command_line.run(main))
