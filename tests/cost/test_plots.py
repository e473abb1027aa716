"""The plots of costs and receptive fields: a bar for every stage, as long as its number."""

import inception
from inception.cost import plots
from inception.cost.counting import count_network

NETWORK = count_network(inception.load_config("configs/digits.py"))


def _lengths(axes) -> list[float]:
    return [bar.get_width() for bar in axes.patches]


def test_costs_have_a_bar_for_every_stage(tmp_path):
    figure = plots.draw_costs(NETWORK)
    multiply_adds, parameters, activations = figure.axes
    names = [label.get_text() for label in multiply_adds.get_yticklabels()]
    assert names == [stage.name for stage in NETWORK.stages]
    assert _lengths(multiply_adds) == [stage.multiply_adds / 1e6 for stage in NETWORK.stages]
    assert _lengths(parameters)[-1] == NETWORK.stages[-1].parameters / 1e6
    assert _lengths(activations)[0] == NETWORK.stages[0].activation_bytes / 1e6
    figure.savefig(tmp_path / "costs.png")
    assert (tmp_path / "costs.png").read_bytes().startswith(b"\x89PNG")


def test_receptive_fields_are_next_to_the_image(tmp_path):
    figure = plots.draw_receptive_fields(NETWORK)
    (axes,) = figure.axes
    assert _lengths(axes)[0] == 3
    assert _lengths(axes)[-1] == 1311
    assert axes.lines[0].get_xdata() == [75, 75]
    assert "1311x1311, every 32" in [text.get_text() for text in axes.texts]
    figure.savefig(tmp_path / "fields.png")
    assert (tmp_path / "fields.png").read_bytes().startswith(b"\x89PNG")
