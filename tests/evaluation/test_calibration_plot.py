"""The calibration's plot: its dots are the accuracies, and its words the metrics'."""

import numpy as np

from inception.evaluation import calibration_plot


def test_dots_are_where_confidence_and_accuracy_are(tmp_path):
    sure, unsure = np.log([0.9, 0.1]), np.log([0.55, 0.45])
    logits = {"net": np.stack([sure, sure, unsure, unsure]), "other": np.zeros((4, 2))}
    figure = calibration_plot.draw(logits, [0, 0, 0, 1])
    images, accuracy = figure.axes
    dots = accuracy.lines[1].get_xydata()
    np.testing.assert_allclose(dots, [[0.55, 0.5], [0.9, 1]], atol=1e-6)
    said = [text.get_text() for axes in figure.axes for text in axes.get_legend().get_texts()]
    assert said[0] == "net: confidence 72.5%, accuracy 75.0%"
    assert "net: calibration error 7.5%" in said
    assert images.patches[0].get_data().values.sum() == 4
    figure.savefig(tmp_path / "calibration.png")
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")
