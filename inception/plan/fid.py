"""Expected speed of FID's features and moments on TPUs or GPUs that this machine does not have.

    python -m inception.plan.fid --topology=v5e:1x1 [--batch_size=256] [--image_size=256]

The step of a large set, from pixels to moments of 2048 features, is compiled for one chip. Its
speed follows from the program and from published numbers, as in `python -m inception.plan`; nothing
is measured. Reading and decoding the images is not included.
"""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from inception import command_line
from inception.cost.counting import trace
from inception.distributed.sharding import split
from inception.fid.bridge import fids_model
from inception.fid.extract import Extractor
from inception.fid.moments import Moments, add, of_shapes
from inception.ops.platforms import compiled_for
from inception.plan import hlo, traffic
from inception.plan.aot import NO_AUTOTUNING, no_cache
from inception.plan.chips import Chip
from inception.plan.scaling import StepTime
from inception.plan.topology import Topology, check_installed, make_mesh, parse_topology
from inception.workdir.logbook import log

TPU_PASSES = 6  # products of bfloat16 that make up one of float32 at HIGHEST precision


class Extraction(NamedTuple):
    """What a compiled step needs for each image.

    Attributes:
      operations: Operations of the products, two to a multiply-add.
      hbm_bytes: Bytes that are read from and written to the chip's main memory.
    """

    operations: float
    hbm_bytes: float


def compile_for(topology: Topology, batch_size: int, image_size: int) -> Extraction:
    """Compiles the step for one chip.

    Raises:
      UserError: If the compiler is not installed.
    """
    mesh = make_mesh(topology)
    platform = "cuda" if topology.chip.gpu else "tpu"

    def step(extract: Extractor, moments: Moments, images: jax.Array) -> Moments:
        return add(moments, extract.features(images)["pooled"])

    with compiled_for(platform):
        extract = Extractor.abstract(fids_model(), mesh=mesh)
        moments = of_shapes(2048, mesh)
        shape = batch_size, image_size, image_size, 3
        images = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=split(mesh))
        lowered = jax.jit(step, donate_argnums=1).lower(extract, moments, images)
        with no_cache():
            options: Any = NO_AUTOTUNING if topology.chip.gpu else None
            program = hlo.Program(lowered.compile(options).as_text() or "")
    layers, _ = trace(step, extract, moments, images)
    moved = traffic.transfers(program)
    return Extraction(
        2 * sum(layer.multiply_adds for layer in layers) / batch_size,
        sum(each.total for each in moved) / batch_size,
    )


def float32_operations(chip: Chip) -> float:
    """Operations/s in float32 at full precision."""
    if gpu := chip.gpu:
        return 2 * gpu.units * gpu.cores * gpu.clock * 1e9
    return chip.flops / TPU_PASSES


def image_time(chip: Chip, found: Extraction) -> StepTime:
    """Minimum times of an image."""
    return StepTime(
        found.operations / float32_operations(chip), found.hbm_bytes / chip.bandwidth, 0.0
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the expected images/s."""
    parser = command_line.parser("python -m inception.plan.fid", __doc__)
    parser.add_argument("--topology", required=True, help="one chip, such as v5e:1x1 or h100")
    parser.add_argument("--batch_size", type=int, default=256, help="images (%(default)s)")
    parser.add_argument("--image_size", type=int, default=256, help="pixels (%(default)s)")
    args, _ = command_line.parse(parser, argv)
    topology = parse_topology(args.topology)
    if topology.size != 1 or min(args.batch_size, args.image_size) < 1:
        parser.error("--topology must be one chip, and the sizes at least 1")
    check_installed(topology)
    found = compile_for(topology, args.batch_size, args.image_size)
    time = image_time(topology.chip, found)
    log(
        f"{1 / time.longest:,.0f} to {1 / time.shortest:,.0f} images/s of {args.image_size} pixels "
        f"on one {topology.chip.name}: {found.operations / 1e9:.1f} GFLOP an image at "
        f"{float32_operations(topology.chip) / 1e12:,.0f} TFLOP/s in float32, "
        f"{found.hbm_bytes / 1e6:,.0f} MB at {topology.chip.bandwidth / 1e9:,.0f} GB/s"
    )


if __name__ == "__main__":
    sys.exit(command_line.run(main))
