"""The confusion matrix's plot: counts where they belong, names where there are some."""

import numpy as np

from inception.evaluation import confusion_plot

RESULTS = {
    "split": "validation",
    "examples": 7,
    "ema": {"top1": 5 / 7, "confusion": [[3, 1, 0], [0, 2, 0], [1, 0, 0]]},
}


def test_cells_hold_the_counts_and_axes_the_names():
    axes = confusion_plot.draw(RESULTS, ["cat", "dog", "cow"]).axes[0]
    written = {text.get_position(): text.get_text() for text in axes.texts if text.get_text()}
    assert written == {(0, 0): "3", (1, 0): "1", (1, 1): "2", (0, 2): "1"}  # column, row
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "cow"]
    assert "71.43%" in axes.get_title(loc="left")
    np.testing.assert_allclose(axes.images[0].get_array()[0], [0.75**0.4, 0.25**0.4, 0])


def test_folders_may_be_called_anything(tmp_path):
    figure = confusion_plot.draw(RESULTS, ["$", "caf\udce9", "a_b"])
    figure.savefig(tmp_path / "confusion.png")  # where text is drawn
    labels = figure.axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == ["$", "caf?", "a_b"]
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_fifty_classes_without_names_or_images_can_be_drawn(tmp_path):
    empty = {**RESULTS, "ema": {"top1": 0.0, "confusion": np.zeros((50, 50), int).tolist()}}
    figure = confusion_plot.draw(empty)
    figure.savefig(tmp_path / "confusion.png")
    assert not figure.axes[0].texts
    assert figure.axes[0].get_xticklabels()[49].get_text() == "49"
