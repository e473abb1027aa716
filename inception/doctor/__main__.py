"""Examines a machine, its data and a config before a run of days is started.

    python -m inception.doctor --config=configs/v3.py [--config.FIELD=VALUE ...] [--workdir=DIR]

Prints a row a check: PASS, WARN (it would run, but look at this) or FAIL (it could not start), with
what to do below it; exits with status 1 after a FAIL. Nothing is measured before all that it needs
has passed. The input is measured on the run's own data, the step on made-up batches that lie on the
devices: without data, --config.dataset=fake examines all the rest.

On a CPU a step of a large batch takes minutes and more memory than there is: there the step is
measured with a smaller one and its memory is scaled, and the rows say so. Nothing is written to the
workdir. One process is examined, its devices against its own input.
"""

import argparse
import sys
import textwrap
from collections.abc import Iterator, Sequence

from inception.config import load, parse_args
from inception.doctor.checks import STAGES, Check, Finding, Run
from inception.errors import UserError
from inception.logbook import log


def attempt(check: Check, run: Run) -> Finding:
    """Makes one check; what it raises is a failure."""
    try:
        return check(run)
    except (UserError, ValueError, OSError, ImportError, RuntimeError) as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            advice = "raise config.accumulation_steps, or use a smaller batch_size"
            return Finding("the devices' memory does not suffice", advice, "FAIL")
        return Finding(str(error), status="FAIL")


def examine(run: Run) -> Iterator[tuple[str, Finding]]:
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


def row(name: str, finding: Finding) -> str:
    """A line of the table, and the advice below it."""
    lines = [*finding.text.splitlines(), *(f"-> {line}" for line in finding.advice.splitlines())]
    return f"{finding.status:6}{name:17}" + textwrap.indent("\n".join(lines), " " * 23).lstrip()


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table of the config that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m inception.doctor",
        description="Examines this machine, the data and a config before a long run.",
    )
    parser.add_argument("--config", required=True, help="a file such as configs/v3.py")
    parser.add_argument("--workdir", help="where the run will be kept")
    args, overrides = parse_args(parser, argv)
    try:
        run = Run(load(args.config, overrides), args.workdir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    statuses = []
    for name, finding in examine(run):
        log(row(name, finding))
        statuses.append(finding.status)
    failed = "FAIL" in statuses
    log("\nThe run could not start." if failed else "\nThe run can start.")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
