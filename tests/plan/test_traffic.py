"""What programs move: small ones, compiled here, whose traffic is known; and lines of a TPU's."""

import jax
import jax.numpy as jnp
import pytest

from inception.plan import hlo, traffic

SIDE = 512
WHOLE = 4 * SIDE * SIDE  # bytes of a float32 matrix


def _program(function, *shapes, donate=()) -> hlo.Program:
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return hlo.Program(
        jax.jit(function, donate_argnums=donate).lower(*arguments).compile().as_text()
    )


def _moved(program: hlo.Program) -> tuple[float, float]:
    found = traffic.transfers(program)
    return (
        sum(each.times * each.read for each in found),
        sum(each.times * each.written for each in found),
    )


def test_elementwise_operations_read_each_operand_and_write_the_result():
    program = _program(lambda x, y: jnp.tanh(x) * y + 1, (SIDE, SIDE), (SIDE, SIDE))
    assert _moved(program) == (2 * WHOLE, WHOLE)


def test_of_a_sliced_operand_the_slice_is_read():
    program = _program(lambda x: jnp.tanh(x[:8]) + 1, (SIDE, SIDE))
    assert _moved(program) == (WHOLE / SIDE * 8, WHOLE / SIDE * 8)


def test_a_loop_counts_as_often_as_it_runs():
    def body(_, x):
        return jnp.tanh(x) + 1

    program = _program(lambda x: jax.lax.fori_loop(0, 5, body, x), (SIDE, SIDE))
    loops = [each for each in traffic.transfers(program) if each.times == 5]
    assert sum(each.total for each in loops) >= 5 * 2 * WHOLE
    assert sum(each.total for each in loops) < 5 * 2 * WHOLE * 1.01


def test_an_update_in_place_moves_the_update():
    def update(x, row):
        return jax.lax.dynamic_update_slice(x, row, (3, 0))

    program = _program(update, (SIDE, SIDE), (1, SIDE), donate=0)
    read, written = _moved(program)
    assert written == WHOLE / SIDE
    assert read <= 2 * WHOLE / SIDE


def test_a_matrix_product_is_named_so():
    program = _program(lambda x, y: x @ y, (SIDE, SIDE), (SIDE, SIDE))
    assert traffic.by_kind(traffic.transfers(program))["convolution"] == 3 * WHOLE


# What follows is a TPU's program: memory space S(1) is on the chip.

BATCH = "bf16[128,8,8,64]{0,3,2,1:T(8,128)(2,1)%s}"
BATCH_BYTES = 128 * 8 * 8 * 64 * 2
TPU = f"""HloModule step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {{
  %a = f32[]{{:T(128)}} parameter(0)
  %b = f32[]{{:T(128)}} parameter(1)
  ROOT %sum = f32[]{{:T(128)}} add(%a, %b)
}}

%fused (p: bf16[128,8,8,64]) -> bf16[128,8,8,64] {{
  %p = {BATCH % "S(1)"} parameter(0)
  ROOT %t = {BATCH % ""} tanh(%p)
}}

ENTRY %main (x: bf16[128,8,8,64], w: f32[100,64]) -> (bf16[128,8,8,64], f32[100,64]) {{
  %x = {BATCH % ""} parameter(0)
  %w = f32[100,64]{{1,0:T(8,128)}} parameter(1)
  %start = ({BATCH % "S(1)"}, {BATCH % ""}, u32[]{{:S(2)}}) copy-start(%x)
  %done = {BATCH % "S(1)"} copy-done(%start)
  %y = {BATCH % ""} fusion(%done), kind=kLoop, calls=%fused, metadata={{op_name="jit(step)/Mixed_5b/tanh"}}
  %sum = f32[100,64]{{1,0:T(8,128)}} all-reduce(%w), to_apply=%add, metadata={{op_name="jit(step)/transpose(jvp(Inception))/Logits/sum"}}
  ROOT %result = ({BATCH % ""}, f32[100,64]{{1,0:T(8,128)}}) tuple(%y, %sum)
}}
"""  # noqa: E501


def test_what_lies_on_the_chip_moves_nothing_and_a_copy_its_end_in_memory():
    moved = {each.name: each for each in traffic.transfers(hlo.Program(TPU))}
    assert set(moved) == {"start", "y", "sum"}
    assert (moved["start"].read, moved["start"].written) == (BATCH_BYTES, 0)
    assert (moved["y"].read, moved["y"].written) == (0, BATCH_BYTES)


def test_tiles_are_whole():
    """100 x 64 numbers lie in 13 x 1 tiles of 8 x 128."""
    (sums,) = [each for each in traffic.transfers(hlo.Program(TPU)) if each.name == "sum"]
    assert sums.read == sums.written == 104 * 128 * 4
    assert sums.padding == pytest.approx(2 * (104 * 128 - 100 * 64) * 4)


def test_stages_kinds_and_collectives():
    program = hlo.Program(TPU)
    moved = traffic.transfers(program)
    assert traffic.by_stage(moved, ("Mixed_5b", "Logits")) == {
        ("Mixed_5b", "forward"): 2 * BATCH_BYTES,
        ("Logits", "backward"): 2 * 104 * 128 * 4,
    }
    assert traffic.by_kind(moved)["between devices"] == 2 * 104 * 128 * 4
    (collective,) = traffic.collectives(program)
    assert collective[:3] == ("all-reduce", 100 * 64 * 4, 1)


@pytest.mark.parametrize(
    ("shape", "logical", "padded"),
    [
        ("f32[]{:T(128)}", 4, 512),
        ("f32[4096]{0:T(1024)}", 4 * 4096, 4 * 4096),
        ("bf16[3,3,3,32]{3,2,1,0:T(4,128)(2,1)}", 2 * 27 * 32, 2 * 9 * 4 * 128),
        ("pred[10,10]{1,0}", 100, 100),
        ("s4[9]{0}", 5, 5),
    ],
)
def test_bytes_of_an_array(shape, logical, padded):
    (array,) = hlo.arrays(shape)
    assert (array.logical_bytes, array.bytes) == (logical, padded)


def test_ways_that_meet_again_are_walked_once():
    """Sixty of them: without that, 2^60 steps."""

    def diamonds(x, y):
        for _ in range(60):
            x = jnp.maximum(x * y, x + y)
        return x

    program = _program(diamonds, (SIDE, SIDE), (SIDE, SIDE))
    assert sum(_moved(program)) == 3 * WHOLE
