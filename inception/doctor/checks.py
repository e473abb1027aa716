"""The doctor's checks of a machine, its data and a config; each returns a Finding."""

import contextlib
import importlib.metadata
import importlib.util
import math
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import jax
from etils import epath
from ml_collections import ConfigDict

from inception.config import named_evaluations
from inception.data.datasets import eval_data, open_eval_source, open_train_source
from inception.data.folder import FolderSource, check_files
from inception.data.paths import is_local
from inception.data.sources import Source
from inception.distributed import sharding
from inception.doctor import speed
from inception.doctor.findings import Finding
from inception.errors import CheckpointError, UserError
from inception.training import finetune
from inception.training.loop import Trainer
from inception.training.state import build
from inception.workdir.identity import check_resumable, has_trained, resolve_workdir

MAX_DAYS = 30  # a longer run gets a warning
MAX_MEMORY_SHARE = 0.9  # the allocator cannot use all of a device's memory
MAX_LISTED = 10  # bad files that are named
GIB = 2**30

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets")
TESTED = (0, 10), (0, 12)  # first and last minor version of jax and jaxlib
CUDA_PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin")


class PlannedRun:
    """A run before its start; its data is opened and its speed measured on first use.

    Raises:
      UserError: If the weights of config.init_from cannot be used.
    """

    def __init__(self, config: ConfigDict, workdir: epath.PathLike | None = None):
        self.workdir = resolve_workdir(workdir) if workdir else None
        self.config, _ = finetune.prepare(config, self.workdir)

    @cached_property
    def train_source(self) -> Source:
        """Training images."""
        return open_train_source(self.config)

    @cached_property
    def eval_source(self) -> Source:
        """Evaluation images."""
        return open_eval_source(self.config)

    @cached_property
    def named_sources(self) -> dict[str, Source]:
        """Images of `config.evaluations`, by name."""
        evaluations = named_evaluations(self.config)
        return {name: open_eval_source(config) for name, config in evaluations.items()}

    @cached_property
    def input(self) -> float:
        """Images/s of the input alone."""
        return speed.measure_input(self.config, self.train_source)

    @cached_property
    def step(self) -> speed.StepSpeed:
        """Speed and memory of the training step alone."""
        return speed.measure_step(self.config, self.train_source)

    @property
    def is_scaled(self) -> bool:
        """Whether the step was measured with another batch size than the config's."""
        return self.step.batch_size != self.config.batch_size


def devices(run: PlannedRun) -> Finding:
    """Devices, cores and memory."""
    text = f"{jax.device_count()} {jax.devices()[0].device_kind} device(s)"
    text += "" if speed.on_cpu() else f" of {speed.device_memory() / GIB:.1f} GiB"
    text += f"; {speed.cores()} cores, {speed.host_memory() / GIB:.1f} GiB of host memory"
    advice = "there is an NVIDIA GPU: pip install -e '.[cuda]', and unset JAX_PLATFORMS"
    return Finding.judge(text, advice, warn=speed.on_cpu() and Path("/dev/nvidia0").exists())


def versions(run: PlannedRun) -> Finding:
    """Versions of the libraries that matter."""
    installed = {}
    for name in (*PACKAGES, *CUDA_PLUGINS):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    text = ", ".join(f"{name} {installed.get(name, 'missing')}" for name in PACKAGES)
    fails = not importlib.util.find_spec("tensorboard")
    problems = "\n".join(version_problems(installed))
    return Finding.judge(text, problems, warn=bool(problems), fail=fails)


def version_problems(installed: dict[str, str]) -> Iterator[str]:
    """Yields a line for each known problem of `installed`, versions by package."""
    for name in ("jax", "jaxlib"):
        line = tuple(map(int, installed[name].split(".")[:2]))
        if not TESTED[0] <= line <= TESTED[1]:
            yield f"{name} {installed[name]} has not been tested: pip install '{name}>=0.10,<0.13'"
    jaxlib = installed["jaxlib"]
    for name in CUDA_PLUGINS:
        if installed.get(name, jaxlib) != jaxlib:
            yield f"jaxlib {jaxlib} ignores {name} {installed[name]}: pip install {name}=={jaxlib}"
    if not importlib.util.find_spec("tensorboard"):
        yield "clu needs tensorboard without requiring it: pip install tensorboard"
    if not importlib.util.find_spec("importlib_resources"):
        module = "importlib_resources"
        yield f"tensorflow-datasets needs {module} without requiring it: pip install {module}"


def training_data(run: PlannedRun) -> Finding:
    """The training split."""
    return Finding(_size(run.config.dataset, run.config.split, run.train_source))


def evaluation_data(run: PlannedRun) -> Finding:
    """The evaluation splits."""
    configs = [run.config, *named_evaluations(run.config).values()]
    sources = [run.eval_source, *run.named_sources.values()]
    sizes = (
        _size(eval_data(config)[0], config.eval.split, source)
        for config, source in zip(configs, sources, strict=True)
    )
    return Finding("\n".join(sizes))


def _size(dataset: str, split: str, source: Source) -> str:
    return f"{dataset}:{split}: {len(source):,} images, {source.num_classes:,} classes"


def batch(run: PlannedRun) -> Finding:
    """Whether training would accept the config, and the network the images."""
    config, workdir = run.config, run.workdir or ""
    trainer = Trainer(config, workdir, run.train_source, run.eval_source, run.named_sources)
    trainer.recipe.abstract_state(trainer.mesh)  # traces the network, whose errors are found here
    share = config.batch_size // config.accumulation_steps // trainer.mesh.size
    return Finding(
        f"{config.batch_size} images of {config.image_size}x{config.image_size} per step, "
        f"{config.accumulation_steps} x {share} on each device, {config.dtype}"
    )


def workdir(run: PlannedRun) -> Finding:
    """Whether the workdir is writable and does not hold another run."""
    if run.workdir is None:
        return Finding("not given", "pass --workdir=DIR", "WARN")
    probe = _existing(run.workdir) / f".doctor-{os.getpid()}"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except Exception as error:  # each file system has its own errors
        raise CheckpointError(f"workdir {run.workdir} cannot be written: {error}") from error
    if not has_trained(run.workdir):
        return Finding(f"{run.workdir} can be written")
    check_resumable(run.workdir, run.config, run.train_source)
    return Finding(f"{run.workdir} holds this run")


def _existing(folder: epath.Path) -> epath.Path:
    """The folder or its closest existing parent; in buckets, which have no folders, itself."""
    if not is_local(folder):
        return folder
    return next(each for each in (folder, *folder.parents) if each.exists())


def files(run: PlannedRun) -> Finding:
    """Whether all files of image folders can be decoded, see `check_files`."""
    sources = [run.eval_source, *run.named_sources.values(), run.train_source]
    folders = [source for source in sources if isinstance(source, FolderSource)]
    if not folders:
        return Finding("no data set is a folder of images")
    bad = {folder: check_files(folder, run.config.max_pixels) for folder in folders}
    lines = [problem for problems in bad.values() for problem in problems]
    text = f"{sum(map(len, folders)):,} files, {len(lines):,} of them cannot be decoded"
    more = [f"and {len(lines) - MAX_LISTED:,} more"] if len(lines) > MAX_LISTED else []
    text = "\n".join([text, *lines[:MAX_LISTED], *more])
    if run.config.on_bad_record == "skip" and [*filter(bad.get, bad)] == [run.train_source]:
        return Finding(text, "training skips them", "WARN")
    advice = "remove them; config.on_bad_record=skip applies to training only"
    return Finding.judge(text, advice, fail=bool(lines))


def disk(run: PlannedRun) -> Finding:
    """Whether the checkpoints fit: those that are kept, and one that is being written."""
    config, folder = run.config, run.workdir or epath.Path(Path.cwd())
    every = config.keep_every_epochs or math.inf
    kept = config.keep_checkpoints + config.keep_best + int(config.num_epochs / every)
    recipe = build(run.config, run.train_source.num_classes, len(run.train_source))
    leaves = jax.tree.leaves(recipe.abstract_state(sharding.make_mesh()))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    needed = size * (kept + 1)
    text = f"{kept} + 1 checkpoints of {size / 1e6:,.0f} MB need {needed / GIB:.2f} GiB; "
    if not is_local(folder):
        return Finding(text + f"the free space at {folder} is unknown")
    free = shutil.disk_usage(_existing(folder)).free
    older = sum(file.stat().st_size for file in Path(folder).glob("checkpoints/**/*"))
    text += f"{free / GIB:.2f} GiB are free"
    text += f" and {older / GIB:.2f} GiB hold older ones" if older else ""
    advice = "free some space, or lower config.keep_checkpoints or raise config.keep_every_epochs"
    return Finding.judge(text, advice, fail=needed > free + older)


def input_speed(run: PlannedRun) -> Finding:
    """Speed of the input alone."""
    threads = speed.threads(run.config)
    return Finding(f"{run.input:,.1f} images/s, decoded by {threads} thread(s)")


def step_speed(run: PlannedRun) -> Finding:
    """Speed of the training step alone."""
    why = f" instead of {run.config.batch_size:,}, as this is a CPU" if run.is_scaled else ""
    step = run.step
    return Finding(f"{step.images_per_second:,.1f} images/s in batches of {step.batch_size:,}{why}")


def memory(run: PlannedRun) -> Finding:
    """Whether the step fits into a device's memory."""
    config, limit = run.config, speed.device_memory()

    def peak(micro_batches: int) -> float:
        return run.step.peak_bytes(config.batch_size / jax.device_count() / micro_batches)

    needed = peak(config.accumulation_steps)
    text = f"about {needed / GIB:.2f} of {limit / GIB:.1f} GiB per device"
    text += f", scaled from a batch of {run.step.batch_size}" if run.is_scaled else ""
    # Micro-batches divide over the devices and consist of whole groups.
    group = min(config.model.batch_norm_group or config.batch_size, config.batch_size)
    most = config.batch_size // math.lcm(jax.device_count(), group)
    fits = [n for n in range(1, most + 1) if most % n == 0 and peak(n) <= MAX_MEMORY_SHARE * limit]
    advice = f"config.accumulation_steps={fits[0]} fits" if fits else "use a smaller batch_size"
    return Finding.judge(text, advice, warn=needed > MAX_MEMORY_SHARE * limit, fail=needed > limit)


def bottleneck(run: PlannedRun) -> Finding:
    """Whether the input or the step limits the speed, and how many cores the input needs."""
    needed = math.ceil(run.step.images_per_second * speed.threads(run.config) / run.input)
    if run.input >= run.step.images_per_second:
        same = ", the same that the step uses" if speed.on_cpu() else ""
        return Finding(f"the step; feeding it takes {needed} of {speed.cores()} cores{same}")
    text = f"the input; feeding the step takes {needed} cores, and there are {speed.cores()}"
    return Finding(text, "use more cores, or config.augmentation=inception_fast", "WARN")


def duration(run: PlannedRun) -> Finding:
    """Duration of the run, without evaluation and checkpoints."""
    epochs, speeds = run.config.num_epochs, (run.input, run.step.images_per_second)
    # Input and step overlap, except on a CPU, where they share the cores.
    images_per_second = 1 / sum(1 / each for each in speeds) if speed.on_cpu() else min(speeds)
    hours = epochs * len(run.train_source) / images_per_second / 3600
    units = {"days": hours / 24, "hours": hours, "minutes": hours * 60}
    unit = next((unit for unit, number in units.items() if number >= 1), "minutes")
    text = (
        f"{units[unit]:,.1f} {unit} for {epochs:g} epochs at {images_per_second:,.1f} images/s, "
        "without evaluation"
    )
    advice = "use more or faster devices, or another config"
    return Finding.judge(text, advice, warn=hours > 24 * MAX_DAYS)


Check = Callable[[PlannedRun], Finding]
# A stage relies on those before it.
STAGES: tuple[tuple[Check, ...], ...] = (
    (devices, versions, training_data, evaluation_data, batch, workdir, files),
    (disk, input_speed, step_speed),
    (memory, bottleneck, duration),
)


def attempt(check: Check, run: PlannedRun) -> Finding:
    """Runs one check; what it raises is a failure."""
    try:
        return check(run)
    except (UserError, ValueError, OSError, ImportError, RuntimeError) as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            advice = "raise config.accumulation_steps, or use a smaller batch_size"
            return Finding("the devices' memory does not suffice", advice, "FAIL")
        return Finding(str(error), status="FAIL")
