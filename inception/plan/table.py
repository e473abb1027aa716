"""A plan's table for several numbers of chips, kept up to date inside a Markdown file."""

import re
from pathlib import Path

from tabulate import tabulate

from inception.errors import UserError
from inception.plan.topology import Plan
from inception.workdir.files import write_text

CHIPS = (1, 4, 8, 16, 32, 64, 128, 256)


def table(plan: Plan) -> str:
    """What the plan's step does on up to 256 chips, each with as many images as in the plan."""
    lines, images = [], plan.images * plan.config.accumulation_steps
    alone, _ = plan.images_per_second(1)
    for chips in (chips for chips in CHIPS if chips <= plan.topology.chip.most):
        low, high = plan.images_per_second(chips)
        seconds = [plan.config.num_epochs * plan.data.images / each for each in (high, low)]
        lines.append(
            {
                "chips": chips,
                "batch": f"{images * chips:,}",
                "messages, ms a step": f"{1e3 * plan.step(chips).interconnect:.2f}",
                "images/s": f"{low:,.0f} to {high:,.0f}",
                "of linear, nothing overlaps": f"{low / chips / alone:.1%}",
                f"{plan.config.num_epochs:g} epochs, hours": " to ".join(
                    f"{each / 3600:,.2f}" for each in seconds
                ),
                "cores that decode": f"{plan.cores(low):,} to {plan.cores(high):,}",
            }
        )
    align = ("right",) * len(lines[0])
    return tabulate(lines, "keys", "pipe", colalign=align, disable_numparse=True)


def write_table(plan: Plan, file: str) -> None:
    """Puts the table, and what it was computed from, between the file's marks for this chip.

    The marks are HTML comments, "<!-- v5e -->" and "<!-- end of v5e -->", and are left there.

    Raises:
      UserError: if the file cannot be read or has no marks.
    """
    chip, program = plan.topology.chip, plan.programs[0]
    begin, end = f"<!-- {chip.name} -->", f"<!-- end of {chip.name} -->"
    try:
        text = Path(file).read_text()
    except OSError as error:
        raise UserError(f"--table={file} cannot be read: {error}") from error
    if begin not in text or end not in text:
        raise UserError(f"--table={file}: write {begin} and {end} where the table is to be")
    kernels = f", {program.kernels:,} kernels" if chip.gpu else ""
    facts = (
        f"Compiled for {plan.topology.name} with {program.images} images on each chip, "
        f"{plan.config.dtype}: {sum(plan.moved.values()) / 1e6:.0f} MB of traffic an image"
        f"{kernels}, {plan.peak_bytes(plan.images) / 2**30:.2f} GiB, up to {plan.largest} images "
        f"fit, {plan.message / 1e6:.1f} MB are summed over the chips in a step. Published: "
        f"{chip.arithmetic / 1e12:,.0f} TFLOP/s, {chip.traffic / 1e9:,.0f} GB/s of memory, "
        f"{chip.interconnect / 1e9:,.0f} GB/s of {chip.link}."
    )
    block = f"{begin}\n{facts}\n\n{table(plan)}\n{end}"
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    write_text(file, re.sub(pattern, lambda _: block, text, count=1, flags=re.DOTALL))
