"""The plan of a run on other chips; each row is a Finding, as those of the doctor.

The step is compiled twice: with the config's batch and, with the compiler's least effort, with
another one, so that a line through both gives the memory of any batch. Everything else is
arithmetic on what the programs contain and on published numbers (chips.py, scaling.py).
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

from ml_collections import ConfigDict

from inception.config import check_batch_size
from inception.cost.counting import count_network
from inception.data.datasets import open_train_source
from inception.doctor import speed
from inception.doctor.checks import GIB, MAX_MEMORY_SHARE
from inception.doctor.findings import Finding
from inception.errors import UserError
from inception.plan.aot import Compiled, OutOfMemory, compile_for
from inception.plan.scaling import StepTime, step_time
from inception.plan.topology import Topology
from inception.workdir.logbook import log

# Where this machine does not have the data:
IMAGENET = 1_281_167, 1000  # training images and classes
DECODED_PER_CORE = 900.0  # images/s of a server's core (benchmarks --mode=data)
MAX_STAGES = 4  # that the row about traffic names


class Data(NamedTuple):
    """Size of the training data, or ImageNet's, and its input speed.

    Attributes:
      images: Number of training images.
      classes: Number of classes.
      decoded_per_core: Images/s that a core decodes, crops and resizes.
      measured: Whether that was measured, on this machine and data.
    """

    images: int
    classes: int
    decoded_per_core: float
    measured: bool


class Plan:
    """A run on a topology; the data is read and programs are compiled on first use.

    Attributes:
      config: The run's config.
      topology: The chips.
      images: Images on each chip at a time, i.e. in a micro-batch.
      group: Images of a batch normalization group, or all of a micro-batch.

    Raises:
      ConfigError: If the batch does not divide over the chips.
    """

    def __init__(self, config: ConfigDict, topology: Topology):
        check_batch_size(config, topology.size)
        self.config, self.topology = config, topology
        self.images = config.batch_size // config.accumulation_steps // topology.size
        group = config.model.batch_norm_group
        self.group = group if group and self.images % group == 0 else self.images

    @cached_property
    def data(self) -> Data:
        """The training data."""
        try:
            source = open_train_source(self.config)
            per_core = speed.measure_input(self.config, source) / speed.threads(self.config)
        except (UserError, OSError):
            return Data(*IMAGENET, DECODED_PER_CORE, measured=False)
        return Data(len(source), source.num_classes, per_core, measured=True)

    @cached_property
    def programs(self) -> tuple[Compiled, Compiled]:
        """The step with the config's batch, halved until it fits, and with another batch.

        Raises:
          OutOfMemory: If not even one batch normalization group fits.
        """
        images = self.images
        while True:
            try:
                first = self._compile(images)
                break
            except OutOfMemory as error:
                log(f"      {error}")
                if images == self.group:
                    raise
                images = images // self.group // 2 * self.group or self.group
        other = self.group if images > self.group else 2 * self.group
        return first, self._compile(other, quick=True)

    def _compile(self, images: int, quick: bool = False) -> Compiled:
        expected = 1 if quick or self.topology.chip.gpu else 5
        log(f"      compiling for {self.topology.name}, {images} images on each chip, which takes")
        log(f"      about {expected} minute(s) on two cores for the whole network ...")
        return compile_for(self.topology, self.config, images, self.data.classes, quick=quick)

    def peak_bytes(self, images: int) -> float:
        """Memory of a chip with `images` at a time, on the line through both programs."""
        one, other = self.programs
        slope = (one.peak_bytes - other.peak_bytes) / (one.images - other.images)
        return one.peak_bytes + slope * (images - one.images)

    @cached_property
    def largest(self) -> int:
        """Maximum images at a time, in whole groups, that leave some of a chip's memory free."""
        limit = MAX_MEMORY_SHARE * self.topology.chip.memory
        groups = 1
        while self.peak_bytes((groups + 1) * self.group) <= limit:
            groups += 1
        return groups * self.group

    @cached_property
    def hbm_bytes(self) -> Counter[tuple[str, str]]:
        """Memory traffic of an image in bytes, by stage and direction."""
        program = self.programs[0]
        return Counter({stage: size / program.images for stage, size in program.hbm_bytes.items()})  # type: ignore[misc]

    @cached_property
    def network(self):
        """Costs of the network with its auxiliary head, for one image's forward pass."""
        return count_network(self.config, self.data.classes).total_with_aux_head

    @property
    def summed_bytes(self) -> int:
        """Bytes that a step sums over the chips; planned on one chip, the size of the gradients."""
        size = sum(collective.bytes for collective in self.programs[0].collectives)
        return size or 4 * self.network.parameters

    def step(self, chips: int) -> StepTime:
        """Minimum times of a step on `chips`, each with as many images as in this plan."""
        images = self.images * self.config.accumulation_steps
        traffic, operations = self.hbm_bytes.total() * images, self.network.multiply_adds
        return step_time(self.topology.chip, chips, images, operations, traffic, self.summed_bytes)

    def images_per_second(self, chips: int) -> tuple[float, float]:
        """Images/s of all chips together, in the worst and in the best case."""
        step, images = self.step(chips), self.images * self.config.accumulation_steps * chips
        return images / step.longest, images / step.shortest

    def cores(self, images_per_second: float) -> int:
        """Number of cores that decode `images_per_second`."""
        return math.ceil(images_per_second / self.data.decoded_per_core)


def topology(plan: Plan) -> Finding:
    """How the batch divides over the chips."""
    config, size = plan.config, plan.topology.size
    text = f"{size} chip(s), {config.accumulation_steps} x {plan.images} images of "
    text += f"{config.image_size}x{config.image_size} a step on each, {config.dtype}"
    advice = "--config.dtype=bfloat16 halves the memory traffic, and these chips are built for it"
    return Finding.judge(text, advice, warn=config.dtype == "float32")


def compiler(plan: Plan) -> Finding:
    """Whether the step compiles."""
    program = plan.programs[0]
    text = f"{program.images} images on each chip in {program.seconds:,.0f} s"
    return Finding(text + (f", {program.kernels:,} kernels" if plan.topology.chip.gpu else ""))


def memory(plan: Plan) -> Finding:
    """Whether the step fits into memory, and the largest batch that does."""
    one, other = plan.programs
    needed, limit = plan.peak_bytes(plan.images), plan.topology.chip.memory
    fixed = plan.peak_bytes(0) / GIB
    each = (plan.peak_bytes(plan.images) / GIB - fixed) / plan.images
    text = (
        f"{needed / GIB:.2f} of {limit / GIB:.1f} GiB of each chip\n"
        f"{fixed:.2f} GiB + {1024 * each:.1f} MiB an image, a line through the programs of "
        f"{one.images} and {other.images} images: up to {plan.largest} images on each chip leave "
        f"{1 - MAX_MEMORY_SHARE:.0%} free"
    )
    advice = "raise config.accumulation_steps, or use more chips"
    fits = one.images == plan.images
    return Finding.judge(text, advice, warn=needed > MAX_MEMORY_SHARE * limit, fail=not fits)


def collectives(plan: Plan) -> Finding:
    """What the chips exchange in a step."""
    lines = [
        f"{each.kind} of {each.bytes / 1e6:,.2f} MB in {each.arrays} array(s)"
        for each in plan.programs[0].collectives
    ]
    return Finding("\n".join(lines) or "none")


def arithmetic(plan: Plan) -> Finding:
    """Speed limit set by arithmetic."""
    chip, step = plan.topology.chip, plan.step(1)
    images = plan.images * plan.config.accumulation_steps
    return Finding(
        f"at most {images / step.arithmetic:,.0f} images/s a chip: "
        f"{step.arithmetic * chip.flops / images / 1e9:.1f} GFLOP an image at "
        f"{chip.flops / 1e12:,.0f} TFLOP/s in bfloat16 ({chip.source})"
    )


def traffic(plan: Plan) -> Finding:
    """Speed limit set by memory traffic, and the stages with most of it."""
    chip, total = plan.topology.chip, plan.hbm_bytes.total()
    parts = ", ".join(
        f"{' '.join(stage).strip()} {size / 1e6:.0f}"
        for stage, size in plan.hbm_bytes.most_common(MAX_STAGES)
    )
    return Finding(
        f"at most {chip.bandwidth / total:,.0f} images/s a chip: {total / 1e6:.0f} MB an image at "
        f"{chip.bandwidth / 1e9:,.0f} GB/s (same source)\nmost of it: {parts} MB"
    )


def interconnect(plan: Plan) -> Finding:
    """Time of the communication between chips."""
    chip, size = plan.topology.chip, plan.topology.size
    if size == 1:
        return Finding("not used by one chip")
    return Finding(
        f"{plan.step(size).interconnect * 1e3:.2f} ms a step for {plan.summed_bytes / 1e6:.1f} MB: "
        f"{chip.link} of {chip.interconnect / 1e9:,.0f} GB/s in both directions (same source)"
    )


def expected_speed(plan: Plan) -> Finding:
    """Range of the expected speed."""
    low, high = plan.images_per_second(plan.topology.size)
    return Finding(
        f"{low:,.0f} to {high:,.0f} images/s: from half of the speed without any overlap of "
        "arithmetic, traffic and communication to that with full overlap"
    )


def duration(plan: Plan) -> Finding:
    """Duration of an epoch and of the run."""
    (low, high), data = plan.images_per_second(plan.topology.size), plan.data
    epoch = [data.images / each for each in (high, low)]
    hours = [plan.config.num_epochs * seconds / 3600 for seconds in epoch]
    return Finding(
        f"{epoch[0]:,.0f} to {epoch[1]:,.0f} s an epoch of {data.images:,} images, "
        f"{hours[0]:,.1f} to {hours[1]:,.1f} hours for {plan.config.num_epochs:g} epochs, without "
        "evaluation"
    )


def host(plan: Plan) -> Finding:
    """Number of cores that the input needs."""
    chips, data = plan.topology.size, plan.data
    low, high = plan.images_per_second(chips)
    hosts = math.ceil(chips / plan.topology.chip.per_host)
    where = "measured here" if data.measured else "typical of a server, as the data is not here"
    return Finding(
        f"{plan.cores(low)} to {plan.cores(high)} cores decode images for all chips, "
        f"{plan.cores(low / hosts)} to {plan.cores(high / hosts)} on each of {hosts} host(s): "
        f"{data.decoded_per_core:,.0f} images/s a core, {where}"
    )


ROWS: tuple[Callable[[Plan], Finding], ...] = (
    *(topology, compiler, memory, collectives, arithmetic, traffic, interconnect),
    *(expected_speed, duration, host),
)


def rows(plan: Plan) -> Iterator[tuple[str, Finding]]:
    """Yields (name, finding) of each row as soon as it is known.

    A batch that is too large is planned to the end, from a smaller one. Any other failure ends the
    plan.
    """
    for row in ROWS:
        try:
            finding = row(plan)
        except OutOfMemory as error:
            finding = Finding(str(error), "raise config.accumulation_steps", "FAIL")
        except RuntimeError as error:  # the compiler's
            finding = Finding(str(error).splitlines()[0], status="FAIL")
        yield row.__name__.replace("_", " "), finding
        if finding.status == "FAIL" and row is not memory:
            return
