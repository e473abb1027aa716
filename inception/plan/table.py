"""The table of a plan for 1 to 256 chips, inside a Markdown file."""

import re
from pathlib import Path

from tabulate import tabulate

from inception.errors import UserError
from inception.plan.rows import Plan
from inception.workdir.files import write_text

CHIPS = (1, 4, 8, 16, 32, 64, 128, 256)


def table(plan: Plan) -> str:
    """The plan's step on up to 256 chips, each with as many images as in the plan."""
    lines, images = [], plan.images * plan.config.accumulation_steps
    alone, _ = plan.images_per_second(1)
    for chips in (chips for chips in CHIPS if chips <= plan.topology.chip.max_chips):
        low, high = plan.images_per_second(chips)
        seconds = [plan.config.num_epochs * plan.data.images / each for each in (high, low)]
        lines.append(
            {
                "chips": chips,
                "batch": f"{images * chips:,}",
                "all-reduce, ms a step": f"{1e3 * plan.step(chips).interconnect:.2f}",
                "images/s": f"{low:,.0f} to {high:,.0f}",
                "of linear, without overlap": f"{low / chips / alone:.1%}",
                f"{plan.config.num_epochs:g} epochs, hours": " to ".join(
                    f"{each / 3600:,.2f}" for each in seconds
                ),
                "cores that decode": f"{plan.cores(low):,} to {plan.cores(high):,}",
            }
        )
    align = ("right",) * len(lines[0])
    return tabulate(lines, "keys", "pipe", colalign=align, disable_numparse=True)


def write_table(plan: Plan, file: str) -> None:
    """Writes the table, and what it was computed from, between the chip's marks in the file.

    The marks are HTML comments such as "<!-- v5e -->" and "<!-- end of v5e -->", and stay in it.

    Raises:
      UserError: If the file cannot be read or has no such marks.
    """
    chip, program = plan.topology.chip, plan.programs[0]
    begin, end = f"<!-- {chip.name} -->", f"<!-- end of {chip.name} -->"
    try:
        text = Path(file).read_text()
    except OSError as error:
        raise UserError(f"--table={file} cannot be read: {error}") from error
    if begin not in text or end not in text:
        raise UserError(f"--table={file}: put {begin} and {end} where the table belongs")
    kernels = f", {program.kernels:,} kernels" if chip.gpu else ""
    facts = (
        f"Compiled for {plan.topology.name} with {program.images} images on each chip, "
        f"{plan.config.dtype}: {plan.hbm_bytes.total() / 1e6:.0f} MB of traffic an image"
        f"{kernels}, {plan.peak_bytes(plan.images) / 2**30:.2f} GiB, up to {plan.largest} images "
        f"fit, {plan.summed_bytes / 1e6:.1f} MB are summed over the chips in a step. Published: "
        f"{chip.flops / 1e12:,.0f} TFLOP/s, {chip.bandwidth / 1e9:,.0f} GB/s of memory, "
        f"{chip.interconnect / 1e9:,.0f} GB/s of {chip.link}."
    )
    block = f"{begin}\n{facts}\n\n{table(plan)}\n{end}"
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    write_text(file, re.sub(pattern, lambda _: block, text, count=1, flags=re.DOTALL))
