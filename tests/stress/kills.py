"""Kills a run at random moments, again and again, and looks whether anything is ever lost.

    python -m tests.stress.kills --rounds=100 --seed=0

Each round starts the same command, `python main.py --config=configs/digits.py` shrunk to seconds,
and kills it (SIGKILL): at any time, or soon after it has come to one of `PLACES`. The next start
must continue from the newest complete checkpoint without anybody's help. When a run has come to its
end, however often it was killed, every leaf of its last checkpoint, its losses and its results must
be, bit for bit, those of a run that nobody disturbed; then a new run begins, which prepares its own
copy of the data set first.

Prints where the kills fell, and exits with 1 if a single start or run went wrong; its workdir is
then kept. A round takes a quarter of a minute. Programs are compiled once, for the first run; they
are kept where JAX_COMPILATION_CACHE_DIR says.
"""

import argparse
import collections
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

STEPS, SAVE_EVERY, EVALUATE_EVERY = 12, 3, 4
EXAMPLES, BATCH = 1437, 16  # configs/digits.py trains on
FIELDS = {
    "model.width_multiplier": 0.05,
    "model.batch_norm_group": 8,
    "batch_size": BATCH,
    "eval.batch_size": 120,
    "num_epochs": STEPS * BATCH / EXAMPLES,
    "eval.every_epochs": EVALUATE_EVERY * BATCH / EXAMPLES,
    "checkpoint_every_steps": SAVE_EVERY,
    "keep_checkpoints": 2,
    "log_every_steps": 1,
}
# Where a kill falls, as it looks from outside: the data set is not there yet; no step is printed
# yet; a checkpoint is being written; after the step of an evaluation; after the last evaluation.
PLACES = ("before data", "first step", "step", "save", "evaluation", "end")
LIMIT = 600.0  # seconds in which a start must come to its end


@dataclass
class Run:
    """A workdir and all starts of the command in it."""

    folder: Path
    starts: int = 0

    @property
    def workdir(self) -> Path:
        return self.folder / "run"

    def start(self) -> "Start":
        self.starts += 1
        return Start(self)

    def steps(self) -> list[int]:
        """The complete checkpoints."""
        folder = self.workdir / "checkpoints"
        names = [path.name for path in folder.iterdir()] if folder.exists() else []
        return sorted(int(name) for name in names if name.isdecimal())


class Start:
    """One start of the command, watched from outside."""

    def __init__(self, run: Run):
        self._run = run
        self.newest = max(run.steps(), default=0)
        command = [sys.executable, "main.py", "--config=configs/digits.py"]
        command += [f"--workdir={run.workdir}", f"--config.data_dir={run.folder / 'data'}"]
        command += [f"--config.{name}={value}" for name, value in FIELDS.items()]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.process = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
        self.output: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        self.output.extend(self.process.stdout)

    def place(self) -> str:
        """Where it is now, one of PLACES."""
        steps = re.findall(r"^step (\d+)/\d+  (\w+)", self.text(), re.M)
        if not (self._run.folder / "data" / "digits" / "1.0.0" / "dataset_info.json").exists():
            return "before data"
        if not steps:
            return "first step"
        if list((self._run.workdir / "checkpoints").glob("*tmp*")):
            return "save"
        if (self._run.workdir / "results.json").exists():
            return "end"
        number, what = steps[-1]  # "epoch" of training; an evaluation begins with its split
        return "evaluation" if what == "epoch" and int(number) % EVALUATE_EVERY == 0 else "step"

    def text(self) -> str:
        return "".join(self.output)

    def kill(self, place: str | None, delay: float) -> str:
        """Kills it `delay` seconds after it has come to a place, or to any; returns where it fell.

        Comes back with "" if it has ended before.
        """
        give_up = time.monotonic() + LIMIT
        while place and self.place() != place and self.process.poll() is None:
            time.sleep(0.005)
            if time.monotonic() > give_up:
                break
        try:
            self.process.wait(delay)
        except subprocess.TimeoutExpired:
            place = self.place()
            self.process.kill()
        ended = self.process.wait() >= 0
        self._reader.join()
        return "" if ended else str(place)

    def problems(self, ended: bool) -> list[str]:
        """What a start has done that it must not."""
        found = []
        if ended and self.process.returncode:
            found.append(f"it ended with status {self.process.returncode}")
        if "Traceback" in self.text() or "rror:" in self.text():
            found.append("it printed an error")
        went_on = re.search(r"^continuing from step (\d+)", self.text(), re.M)
        first = re.search(r"^step (\d+)/", self.text(), re.M)
        from_step = int(went_on[1]) if went_on else int(first[1]) - 1 if first else None
        if from_step is not None and from_step != self.newest:
            found.append(f"it went on from {from_step}, and {self.newest} was complete")
        return found


class Report:
    """Counts where kills fell, and what went wrong."""

    def __init__(self) -> None:
        self.fell: collections.Counter[str] = collections.Counter()
        self.compared = 0
        self.wrong: list[str] = []

    @property
    def kills(self) -> int:
        return self.fell.total()

    def note(self, run: Run, start: Start, where: str, problems: list[str]) -> None:
        """A start that was killed somewhere, or that has ended."""
        self.fell.update([where] if where else [])
        self.compared += not where
        what = f"run {run.folder.name} from step {start.newest}, "
        what += f"killed: {where}" if where else "ended"
        print("; ".join([f"{self.kills:4}  {what}", *problems]), flush=True)
        if problems:
            self.wrong.append(f"{run.folder}: {'; '.join(problems)}\n{start.text()}")

    def text(self) -> str:
        """The table."""
        lines = [f"{place:12} {self.fell[place]:5}" for place in PLACES]
        verdict = f"{self.kills} kills, {self.compared} runs compared, {len(self.wrong)} wrong"
        return "\n".join([*lines, verdict, *self.wrong])


def result(run: Run) -> dict:
    """What must be the same however often a run was killed."""
    from inception.workdir.digests import read  # JAX takes a second, and only the end needs it
    from inception.workdir.logbook import read_metrics

    (stored,) = run.workdir.glob(f"checkpoints/{STEPS}/digests/*.json")
    losses = {
        line["step"]: line["train/loss"]
        for line in read_metrics(run.workdir)
        if "train/loss" in line
    }
    return {
        "leaves": read(stored)[1],
        "losses": losses,
        "results": json.loads((run.workdir / "results.json").read_text()),
    }


def restore(run: Run) -> None:
    """Reads the last checkpoint, every leaf of which is compared with its digest."""
    import inception
    from inception.distributed import sharding
    from inception.training.state import build
    from inception.workdir.checkpoints import Checkpoints
    from inception.workdir.identity import read_config

    inception.restore_run(run.workdir)
    like = build(read_config(run.workdir), 10, EXAMPLES / BATCH)
    with Checkpoints(run.workdir) as saved:
        saved.restore(like.abstract_state(sharding.make_mesh()), step=STEPS)


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100, help="how many kills")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=Path, help="where the runs lie; default: a temporary one")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))
    report = stress(folder, args.rounds, random.Random(args.seed))
    print(report.text())
    return 1 if report.wrong else 0


def undisturbed(run: Run) -> tuple[dict, dict[str, float]]:
    """The result of a run that nobody disturbs, and how many seconds it was at each place."""
    lasted, start = dict.fromkeys(PLACES, 0.0), run.start()
    while start.process.poll() is None:
        place, begin = start.place(), time.monotonic()
        time.sleep(0.01)
        lasted[place] += time.monotonic() - begin
    if start.kill(None, LIMIT) or start.process.returncode:
        raise SystemExit(f"the run that nobody disturbs fails:\n{start.text()}")
    return result(run), lasted


def stress(folder: Path, rounds: int, chance: random.Random) -> Report:
    """Kills `rounds` times, and compares each run that has come to its end."""
    expected, lasted = undisturbed(Run(folder / "undisturbed"))
    report, number = Report(), 0
    run = Run(folder / "0")
    while report.kills < rounds or run.starts:
        start = run.start()
        ahead = PLACES[PLACES.index(start.place()) :]  # the data set is prepared only once
        place = chance.choice((*ahead, None))
        delay = chance.uniform(0, lasted[place] if place else sum(lasted.values()))
        in_peace = report.kills >= rounds  # so that the last run comes to its end
        where = start.kill(None, LIMIT) if in_peace else start.kill(place, delay)
        problems = start.problems(ended=not where)
        if not where and not problems:
            restore(run)
            found = result(run)
            problems = [f"its {what} differ" for what in expected if found[what] != expected[what]]
        report.note(run, start, where, problems)
        if not where or problems:
            if not problems:
                shutil.rmtree(run.folder)
            number += 1
            run = Run(folder / str(number))
    return report


if __name__ == "__main__":
    sys.exit(main())
