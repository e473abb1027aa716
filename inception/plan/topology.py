"""The plan of a run on chips that are not here; each row is a Finding, as those of checks.py.

The step is compiled for the chips by their makers' compilers, twice: with the config's batch and,
with the compiler's least effort, with another, so that a line through both tells how its memory
grows. All else is arithmetic on what the programs say and on what is published about the chips
(cost/chips.py, scaling.py).
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
from inception.doctor.checks import GIB, ROOMY
from inception.doctor.findings import Finding
from inception.errors import UserError
from inception.plan.absent import Compiled, NoMemory, Topology, compile_for
from inception.plan.scaling import StepTime, step_time
from inception.workdir.logbook import log

IMAGENET = 1_281_167, 1000  # training images and classes, for where the data is not
# JPEGs of ImageNet's size that a server's core decodes, crops and resizes in a second
# (benchmarks --mode=data). Where the data is here, this machine's own speed is measured.
DECODED_PER_CORE = 900.0
STAGES_NAMED = 4


class Data(NamedTuple):
    """The training data, or ImageNet's sizes."""

    images: int
    classes: int
    decoded_per_core: float  # images/s
    measured: bool


class Plan:
    """A run on a topology; what needs its data or a compiler is found out on first use.

    Raises:
      ConfigError: for a batch that does not split over the chips.
    """

    def __init__(self, config: ConfigDict, topology: Topology):
        check_batch_size(config, topology.size)
        self.config, self.topology = config, topology
        self.images = config.batch_size // config.accumulation_steps // topology.size  # at a time
        group = config.model.batch_norm_group
        self.group = group if group and self.images % group == 0 else self.images

    @cached_property
    def data(self) -> Data:
        """What is trained on, and how fast it is decoded."""
        try:
            source = open_train_source(self.config)
            per_core = speed.measure_input(self.config, source) / speed.threads(self.config)
        except (UserError, OSError):
            return Data(*IMAGENET, DECODED_PER_CORE, measured=False)
        return Data(len(source), source.num_classes, per_core, measured=True)

    @cached_property
    def programs(self) -> tuple[Compiled, Compiled]:
        """The step with the config's images, or half as many until they fit, and with others.

        Raises:
          NoMemory: if not even one group fits.
        """
        images = self.images
        while True:
            try:
                first = self._compile(images)
                break
            except NoMemory as error:
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
        """Memory of a chip with so many images at a time, on the line through both programs."""
        one, other = self.programs
        slope = (one.peak_bytes - other.peak_bytes) / (one.images - other.images)
        return one.peak_bytes + slope * (images - one.images)

    @cached_property
    def largest(self) -> int:
        """Images at a time of whole groups that leave a chip room, on the same line."""
        limit = ROOMY * self.topology.chip.memory
        groups = 1
        while self.peak_bytes((groups + 1) * self.group) <= limit:
            groups += 1
        return groups * self.group

    @cached_property
    def moved(self) -> Counter[tuple[str, str]]:
        """Bytes an image of a chip's memory traffic, by stage and direction."""
        program = self.programs[0]
        return Counter({stage: moved / program.images for stage, moved in program.moved.items()})  # type: ignore[misc]

    @cached_property
    def network(self):
        """What the network costs; an image's forward pass, with the side head."""
        return count_network(self.config, self.data.classes).total_with_aux_head

    @property
    def message(self) -> int:
        """Bytes that are summed over the chips; one chip sends none, and more its gradients."""
        sent = sum(message.bytes for message in self.programs[0].messages)
        return sent or 4 * self.network.parameters

    def step(self, chips: int) -> StepTime:
        """The least times of a step of so many chips, each with as many images as here."""
        images = self.images * self.config.accumulation_steps
        moved = sum(self.moved.values()) * images
        operations = self.network.multiply_adds
        return step_time(self.topology.chip, chips, images, operations, moved, self.message)

    def images_per_second(self, chips: int) -> tuple[float, float]:
        """Of all chips together: what is expected at worst and at best."""
        step, images = self.step(chips), self.images * self.config.accumulation_steps * chips
        return images / step.longest, images / step.shortest

    def cores(self, images_per_second: float) -> int:
        """Cores that decode so many images/s."""
        return math.ceil(images_per_second / self.data.decoded_per_core)


def topology(plan: Plan) -> Finding:
    """What the batch is on these chips."""
    config, size = plan.config, plan.topology.size
    text = f"{size} chip(s), {config.accumulation_steps} x {plan.images} images of "
    text += f"{config.image_size}x{config.image_size} a step on each, {config.dtype}"
    advice = "--config.dtype=bfloat16 halves the traffic and is what their arithmetic is made for"
    return Finding.judge(text, advice, warn=config.dtype == "float32")


def compiler(plan: Plan) -> Finding:
    """Whether the step compiles, and what the program is."""
    program = plan.programs[0]
    text = f"{program.images} images on each chip in {program.seconds:,.0f} s"
    return Finding(text + (f", {program.kernels:,} kernels" if plan.topology.chip.gpu else ""))


def memory(plan: Plan) -> Finding:
    """Whether the step fits, and the largest batch that does."""
    one, other = plan.programs
    needed, limit = plan.peak_bytes(plan.images), plan.topology.chip.memory
    fixed = plan.peak_bytes(0) / GIB
    each = (plan.peak_bytes(plan.images) / GIB - fixed) / plan.images
    text = (
        f"{needed / GIB:.2f} of {limit / GIB:.1f} GiB of each chip\n"
        f"{fixed:.2f} GiB + {1024 * each:.1f} MiB an image, a line through the programs of "
        f"{one.images} and {other.images} images: up to {plan.largest} images on each chip leave "
        f"{1 - ROOMY:.0%} free"
    )
    advice = "raise config.accumulation_steps, or use more chips"
    fits = one.images == plan.images
    return Finding.judge(text, advice, warn=needed > ROOMY * limit, fail=not fits)


def messages(plan: Plan) -> Finding:
    """What is sent between chips in a step."""
    lines = [
        f"{message.kind} of {message.bytes / 1e6:,.2f} MB in {message.arrays} array(s)"
        for message in plan.programs[0].messages
    ]
    return Finding("\n".join(lines) or "none")


def arithmetic(plan: Plan) -> Finding:
    """The limit by arithmetic."""
    chip, step = plan.topology.chip, plan.step(1)
    images = plan.images * plan.config.accumulation_steps
    return Finding(
        f"at most {images / step.arithmetic:,.0f} images/s a chip: "
        f"{step.arithmetic * chip.arithmetic / images / 1e9:.1f} GFLOP an image at "
        f"{chip.arithmetic / 1e12:,.0f} TFLOP/s in bfloat16 ({chip.source})"
    )


def traffic(plan: Plan) -> Finding:
    """The limit by traffic, and where it arises."""
    chip, moved = plan.topology.chip, sum(plan.moved.values())
    parts = ", ".join(
        f"{' '.join(stage).strip()} {part / 1e6:.0f}"
        for stage, part in plan.moved.most_common(STAGES_NAMED)
    )
    return Finding(
        f"at most {chip.traffic / moved:,.0f} images/s a chip: {moved / 1e6:.0f} MB an image at "
        f"{chip.traffic / 1e9:,.0f} GB/s (the same page)\nmost of it: {parts} MB"
    )


def interconnect(plan: Plan) -> Finding:
    """How long the messages take."""
    chip, size = plan.topology.chip, plan.topology.size
    if size == 1:
        return Finding("one chip sends nothing")
    return Finding(
        f"{plan.step(size).interconnect * 1e3:.2f} ms a step for {plan.message / 1e6:.1f} MB: "
        f"{chip.link} of {chip.interconnect / 1e9:,.0f} GB/s in both directions (the same page)"
    )


def expected_speed(plan: Plan) -> Finding:
    """Images/s as a range."""
    low, high = plan.images_per_second(plan.topology.size)
    return Finding(
        f"{low:,.0f} to {high:,.0f} images/s: half of the speed at which arithmetic, traffic and "
        "messages take turns, and that at which they all overlap"
    )


def duration(plan: Plan) -> Finding:
    """How long an epoch and the run take."""
    (low, high), data = plan.images_per_second(plan.topology.size), plan.data
    epoch = [data.images / each for each in (high, low)]
    hours = [plan.config.num_epochs * seconds / 3600 for seconds in epoch]
    return Finding(
        f"{epoch[0]:,.0f} to {epoch[1]:,.0f} s an epoch of {data.images:,} images, "
        f"{hours[0]:,.1f} to {hours[1]:,.1f} hours for {plan.config.num_epochs:g} epochs, without "
        "evaluation"
    )


def host(plan: Plan) -> Finding:
    """Cores that the input needs."""
    chips, data = plan.topology.size, plan.data
    low, high = plan.images_per_second(chips)
    hosts = math.ceil(chips / plan.topology.chip.per_host)
    where = "as measured here" if data.measured else "as on a server; the data is not here"
    return Finding(
        f"{plan.cores(low)} to {plan.cores(high)} cores decode for all chips, "
        f"{plan.cores(low / hosts)} to {plan.cores(high / hosts)} on each of {hosts} host(s): "
        f"{data.decoded_per_core:,.0f} images/s a core, {where}"
    )


ROWS: tuple[Callable[[Plan], Finding], ...] = (
    *(topology, compiler, memory, messages, arithmetic, traffic, interconnect),
    *(expected_speed, duration, host),
)


def rows(plan: Plan) -> Iterator[tuple[str, Finding]]:
    """The plan's rows, (name, finding), each as soon as it is known.

    What does not fit, but would with fewer images, is planned to the end; after any other failure
    nothing is.
    """
    for row in ROWS:
        try:
            finding = row(plan)
        except NoMemory as error:
            finding = Finding(str(error), "raise config.accumulation_steps", "FAIL")
        except RuntimeError as error:  # the compiler's
            finding = Finding(str(error).splitlines()[0], status="FAIL")
        yield row.__name__.replace("_", " "), finding
        if finding.status == "FAIL" and row is not memory:
            return
