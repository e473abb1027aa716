"""What networks cost: the paper's arithmetic, the known counts of every block, and the command."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import inception
from inception import command_line
from inception.cost import __main__ as command
from inception.cost import counting, diagram


@functools.cache
def _cost(name: str, *overrides: str) -> counting.NetworkCost:
    return counting.count_network(inception.load_config(f"configs/{name}.py", overrides))


def _total(name: str) -> int:
    return _cost(name).total.multiply_adds


def _chain(*layers, size: int = 16, channels: int = 64) -> int:
    """Multiply-adds of padded convolutions, ((height, width), output channels, stride), in turn."""

    def apply(x):
        for kernel, features, stride in layers:
            filters = jnp.zeros((*kernel, x.shape[-1], features))
            layout = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(
                x, filters, (stride, stride), "SAME", dimension_numbers=layout
            )
        return x

    image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    return sum(layer.multiply_adds for layer in counting.trace(apply, image)[0])


def _same(*kernels: tuple[int, int]) -> int:
    return _chain(*((kernel, 64, 1) for kernel in kernels))


# The paper's arithmetic, sections 3 and 5.


def test_a_5x5_costs_25_ninths_of_a_3x3_and_two_3x3_save_28_percent_of_it():
    assert _same((5, 5)) * 9 == _same((3, 3)) * 25
    assert 1 - _same((3, 3), (3, 3)) / _same((5, 5)) == pytest.approx(0.28)


def test_3x1_and_1x3_save_33_percent_of_a_3x3_two_2x2_only_11():
    assert 1 - _same((3, 1), (1, 3)) / _same((3, 3)) == pytest.approx(1 / 3)
    assert 1 - _same((2, 2), (2, 2)) / _same((3, 3)) == pytest.approx(1 / 9)


def test_the_costs_of_a_reduction():
    """From d x d x k to d/2 x d/2 x 2k; a pool costs nothing, so only its side matters."""
    d, k = 34, 320
    convolve_first = _chain(((1, 1), 2 * k, 1), size=d, channels=k)
    pool_first = _chain(((1, 1), 2 * k, 1), size=d // 2, channels=k)
    assert convolve_first == 2 * d**2 * k**2
    assert pool_first == 2 * (d // 2) ** 2 * k**2
    costs = [_total(name) for name in ("figure9_pool_first", "v3", "figure9_convolve_first")]
    assert costs == sorted(costs)


def test_the_released_modules_are_cheaper_than_what_they_replace():
    assert _total("v3") < _total("figure6_3x3") < _total("figure6_full")
    assert _total("v3") < _total("figure7_unexpanded")


# What is counted, against arithmetic and against XLA.


def test_strides_groups_and_matrix_products():
    assert _chain(((3, 3), 8, 2), size=9, channels=5) == 5 * 5 * 8 * 3 * 3 * 5

    def grouped(x):
        return jax.lax.conv_general_dilated(
            x,
            jnp.zeros((3, 3, 3, 8)),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=2,
        )

    (layer,), _ = counting.trace(grouped, jnp.zeros((1, 9, 9, 6)))
    assert layer.multiply_adds == 7 * 7 * 8 * 3 * 3 * 3
    (layer,), _ = counting.trace(jnp.dot, jnp.zeros((1, 20)), jnp.zeros((20, 30)))
    assert (layer.kind, layer.multiply_adds) == ("linear", 600)


def test_convolutions_inside_other_functions_are_counted():
    @jax.jit
    def inner(x):
        return jax.checkpoint(lambda y: y @ jnp.zeros((20, 30)))(x)

    layers, output = counting.trace(inner, jnp.zeros((1, 20)))
    assert [layer.multiply_adds for layer in layers] == [600]
    assert output.shape == (1, 30)


def test_xla_counts_as_many_operations_where_nothing_is_padded():
    def stem(x):
        for features, kernel, stride in ((32, 3, 2), (32, 3, 1), (80, 1, 1)):
            filters = jnp.ones((kernel, kernel, x.shape[-1], features))
            layout = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(
                x, filters, (stride, stride), "VALID", dimension_numbers=layout
            )
        return x

    image = jnp.zeros((1, 35, 35, 3))
    ours = sum(layer.multiply_adds for layer in counting.trace(stem, image)[0])
    theirs = jax.jit(stem).lower(image).cost_analysis()
    assert theirs
    np.testing.assert_allclose(ours, theirs["flops"] / 2, rtol=1e-6)


# The networks.

# Millions, at 299x299, of the released network.
MULTIPLY_ADDS = {
    "Conv2d_1a_3x3": 19,
    "Conv2d_2a_3x3": 199,
    "Conv2d_2b_3x3": 398,
    "Conv2d_3b_1x1": 27,
    "Conv2d_4a_3x3": 697,
    "Mixed_5b": 312,
    "Mixed_5c": 339,
    "Mixed_5d": 348,
    "Mixed_6a": 402,
    "Mixed_6b": 374,
    "Mixed_6c": 488,
    "Mixed_6d": 488,
    "Mixed_6e": 618,
    "Mixed_7a": 291,
    "Mixed_7b": 322,
    "Mixed_7c": 389,
}


def test_multiply_adds_of_every_block():
    counted = {stage.name: stage.multiply_adds / 1e6 for stage in _cost("v3").stages}
    for name, expected in MULTIPLY_ADDS.items():
        # Within half of the last digit given, or half a percent.
        assert counted.pop(name) == pytest.approx(expected, rel=0.005, abs=0.5), name
    assert counted == {"MaxPool_3a_3x3": 0, "MaxPool_5a_3x3": 0, "pooled": 0, "Logits": 2.048}


@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("v3", 5.713),
        ("v2_factorized_7x7", 5.713),
        ("v2", 5.300),
        ("table1", 5.995),
    ],
)
def test_totals(name, giga):
    assert _total(name) / 1e9 == pytest.approx(giga, abs=0.0005)


def test_table_1_has_the_parameters_that_the_paper_says():
    assert _cost("table1").total.parameters < 25e6  # section 3


def test_parameters_with_and_without_the_auxiliary_head():
    assert _cost("v3").total.parameters == 23_817_352
    assert _cost("v3").total_with_aux_head.parameters == 27_143_152
    none = _cost("figure8_none")
    assert none.aux_head is None
    assert none.total_with_aux_head.parameters == none.total.parameters == 23_817_352


def test_receptive_fields_of_table_2():
    full, half = _cost("resolution_299"), _cost("resolution_151")
    assert [s.multiply_adds for s in full.stages] == [s.multiply_adds for s in half.stages]
    ratio = _total("resolution_79") / full.total.multiply_adds
    assert ratio == pytest.approx(1 - 0.061, abs=0.001)


def test_stages_are_in_order_with_their_figures_and_shapes():
    stages = [(stage.name, stage.kind, stage.shape) for stage in _cost("v3").stages]
    assert stages[:4] == [
        ("Conv2d_1a_3x3", "conv 3x3/2", (149, 149, 32)),
        ("Conv2d_2a_3x3", "conv 3x3/1", (147, 147, 32)),
        ("Conv2d_2b_3x3", "conv padded 3x3/1", (147, 147, 64)),
        ("MaxPool_3a_3x3", "max pool 3x3/2", (73, 73, 64)),
    ]
    assert [kind.removeprefix("figure ") for _, kind, _ in stages[7:18]] == (
        ["5 with a 5x5"] * 3 + ["10"] + ["6"] * 4 + ["10"] + ["7"] * 2
    )
    assert stages[-3:] == [
        ("Mixed_7c", "figure 7", (8, 8, 2048)),
        ("pooled", "average pool", (2048,)),
        ("Logits", "linear", (1000,)),
    ]
    head = _cost("v3").aux_head
    assert head is not None
    assert [str(layer) for layer in head.layers] == [
        "average pool 5x5/3",
        "conv 1x1/1",
        "conv 5x5/1",
        "linear",
    ]


@pytest.mark.parametrize(
    ("name", "stage", "kind"),
    [
        ("table1", "Mixed_5b", "figure 5"),
        ("figure6_full", "Mixed_6b", "figure 6 with 7x7"),
        ("figure6_3x3", "Mixed_6e", "figure 6 with 3x3"),
        ("figure7_unexpanded", "Mixed_7c", "figure 7 unexpanded"),
        ("figure9_pool_first", "Mixed_6a", "figure 9"),
        ("figure8_plain", "Mixed_7a", "figure 10"),
    ],
)
def test_variants_are_told_from_the_figures(name, stage, kind):
    assert {each.name: each.kind for each in _cost(name).stages}[stage] == kind


def test_activations_follow_the_dtype():
    single, half = _cost("v3"), _cost("v3", "dtype=bfloat16")
    first, last = single.stages[0], single.stages[-1]
    assert first.activation_bytes == 149 * 149 * 32 * 4
    assert half.stages[0].activation_bytes == 149 * 149 * 32 * 2
    assert half.stages[-1].activation_bytes == last.activation_bytes == 4000  # logits stay float32
    # Figure 5: seven convolutions and the pool before one.
    widths = 64 + 48 + 64 + 64 + 96 + 96 + 32 + 192
    assert single.stages[7].activation_bytes == 35 * 35 * widths * 4


def test_layers_know_what_they_read():
    """Whatever the layers are called: a figure's tree is found in the computation itself."""

    def diamond(x):
        one = x @ jnp.zeros((20, 30))
        left = jax.jit(lambda y: y @ jnp.zeros((30, 40)))(jax.nn.relu(one))
        right = one @ jnp.zeros((30, 50))
        return jnp.concatenate([left, right], axis=-1) @ jnp.zeros((90, 2))

    layers, _ = counting.trace(diamond, jnp.zeros((1, 20)))
    assert [layer.inputs for layer in layers] == [(), (0,), (0,), (1, 2)]

    figure10, figure9 = _cost("v3"), _cost("figure9_convolve_first")
    for network, inputs, pool_reads in (
        (figure10, [(), (), (1,), (2,), ()], ()),  # the pool is a branch of its own,
        (figure9, [(), (), (1,), (2,), (), (0, 3, 4)], (0, 3, 4)),  # or after all branches
    ):
        (stage,) = [stage for stage in network.stages if stage.name == "Mixed_6a"]
        assert [layer.inputs for layer in stage.layers] == inputs  # branch by branch
        (pool,) = [layer for layer in stage.layers if layer.kind == "max pool"]
        assert pool.inputs == pool_reads


# The command and the picture.


def test_the_command_compares_configs(capsys):
    paths = [f"--config=configs/{name}.py" for name in ("v3", "v2", "figure8_none")]
    assert command_line.run(lambda: command.main(paths)) == 0
    output = capsys.readouterr().out
    assert "23,817,352" in output
    assert "cannot be matched" in output  # the 3.8 G of table 3
    comparison = [line.split() for line in output.splitlines()[-3:]]
    assert comparison == [
        ["v3", "23,817,352", "5.713", "G", "1.000", "4.8", "G"],
        ["v2", "23,798,184", "5.300", "G", "0.928", "3.8", "G"],
        ["figure8_none", "23,817,352", "5.713", "G", "1.000", "-"],
    ]


def test_the_papers_figure_is_not_shown_beside_another_network(capsys):
    command.main(["--config=configs/v3.py", "--config.batch_size=32"])
    assert "4.8 G" in capsys.readouterr().out
    command.main(["--config=configs/v3.py", "--config.image_size", "151"])
    assert "4.8 G" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.image_size=60", "config.image_size=60"),
        ("--config.model.stm=7x7", "config.model.stm"),
        ("--num_classes=0", "num_classes=0"),
        ("--plot=no/such/folder.png", "no/such/folder.png"),
    ],
)
def test_errors_are_one_line(argument, message, capsys):
    assert command_line.run(lambda: command.main(["--config=configs/digits.py", argument])) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["v3", "table1", "figure9_convolve_first", "figure8_none"])
def test_the_picture_names_every_stage_once_and_is_small(name, tmp_path):
    counted = _cost(name)
    figure = diagram.draw(counted, name)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    for stage in counted.stages:
        # In the outline; a reduction also heads the card that shows its branches.
        assert texts.count(stage.name) == 1 + (stage.kind in ("figure 9", "figure 10"))
    assert any("auxiliary head" in text for text in texts[2:]) == (counted.aux_head is not None)
    file = tmp_path / "architecture.png"
    figure.savefig(file)
    assert file.stat().st_size < 400_000
    assert np.asarray(Image.open(file).convert("L")).std() > 10  # something is drawn


def test_the_picture_draws_the_branches_of_a_figure():
    """Figure 7, the longest branch first; a layer is centered below those that read it."""
    (stage, _) = [stage for stage in _cost("v3").stages if stage.kind == "figure 7"]
    places = diagram.place_layers(stage.layers)
    found = {
        place: f"{str(stage.layers[number]).split(' ')[-1]} {stage.layers[number].shape[-1]}"
        for number, place in places.items()
        if number >= 0
    }
    assert found == {
        **{(0.5, 1): "1x1/1 448", (0.5, 2): "3x3/1 384"},
        **{(0, 3): "1x3/1 384", (1, 3): "3x1/1 384"},
        **{(2.5, 1): "1x1/1 384", (2, 2): "1x3/1 384", (3, 2): "3x1/1 384"},
        **{(4, 1): "3x3/1 1280", (4, 2): "1x1/1 192"},
        (5, 1): "1x1/1 320",
    }


def test_modules_are_drawn_side_by_side(tmp_path):
    figure = diagram.draw_modules(_cost("v3"), ["Mixed_5b", "Mixed_7c"])
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert {"figure 5 with a 5x5", "Mixed_5b", "figure 7", "Mixed_7c"} <= {*texts}
    assert "filter concatenation, 8x8x2048" in texts
    figure.savefig(tmp_path / "modules.png")
    assert np.asarray(Image.open(tmp_path / "modules.png").convert("L")).std() > 10
    with pytest.raises(ValueError, match="'Logits' is not a module"):
        diagram.draw_modules(_cost("v3"), ["Mixed_5b", "Logits"])


def test_nothing_slow_is_imported():
    slow = ("tensorflow", "tensorflow_datasets", "matplotlib")
    code = f"import sys, inception.cost.__main__; print([m for m in {slow} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
