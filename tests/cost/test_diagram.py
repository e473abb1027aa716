"""The picture of an architecture: its stages, and the branches of a figure."""

import numpy as np
import pytest
from PIL import Image

from inception.cost import diagram
from tests.cost.networks import cost


@pytest.mark.parametrize("name", ["v3", "table1", "figure9_convolve_first", "figure8_none"])
def test_the_picture_names_every_stage_once_and_is_small(name, tmp_path):
    counted = cost(name)
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
    (stage, _) = [stage for stage in cost("v3").stages if stage.kind == "figure 7"]
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
    figure = diagram.draw_modules(cost("v3"), ["Mixed_5b", "Mixed_7c"])
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert {"figure 5 with a 5x5", "Mixed_5b", "figure 7", "Mixed_7c"} <= {*texts}
    assert "filter concatenation, 8x8x2048" in texts
    figure.savefig(tmp_path / "modules.png")
    assert np.asarray(Image.open(tmp_path / "modules.png").convert("L")).std() > 10
    with pytest.raises(ValueError, match="'Logits' is not a module"):
        diagram.draw_modules(cost("v3"), ["Mixed_5b", "Logits"])
