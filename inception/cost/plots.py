"""Plots of what was counted: the costs and the receptive field of every stage."""

from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from inception.cost.counting import NetworkCost
from inception.cost.receptive_fields import receptive_fields

_ROW = 0.23  # inches
_COLOR = "#62b3c4"


def draw_costs(network: NetworkCost) -> Figure:
    """Draws multiply-adds, parameters and activations of every stage, from the input down.

    Returns:
      A figure that pyplot does not manage.
    """
    stages = network.stages
    columns = {
        "multiply-adds, millions": [stage.multiply_adds / 1e6 for stage in stages],
        "parameters, millions": [stage.parameters / 1e6 for stage in stages],
        "activations, MB": [stage.activation_bytes / 1e6 for stage in stages],
    }
    figure = Figure(figsize=(11, 1 + _ROW * len(stages)), layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True)
    for axes, (title, values) in zip(panels, columns.items(), strict=True):
        _draw_bars(axes, [stage.name for stage in stages], values)
        axes.set_title(f"{title}: {sum(values):,.4g} in all", size=10, loc="left")
        axes.margins(x=0.02)
    return figure


def draw_receptive_fields(network: NetworkCost) -> Figure:
    """Draws the receptive field of every stage's positions, next to the size of the image.

    Returns:
      A figure that pyplot does not manage.
    """
    fields = receptive_fields(network)
    sizes = [max(field.height, field.width) for field in fields.values()]
    figure = Figure(figsize=(9, 1.1 + _ROW * len(fields)), layout="constrained")
    axes = figure.subplots()
    bars = _draw_bars(axes, list(fields), sizes)
    texts = [f"{field.height}x{field.width}, every {field.stride}" for field in fields.values()]
    axes.bar_label(bars, texts, padding=4, size=8)
    axes.axvline(network.image[0], color="0.3", lw=1, ls="--", label="size of the image")
    axes.set_xlabel("pixels")
    axes.set_title("receptive field, and its stride, of each stage", size=10, loc="left")
    axes.legend(frameon=False, loc="upper right")
    axes.margins(x=0.15)
    return figure


def _draw_bars(axes: Axes, names: list[str], values: list) -> BarContainer:
    bars = axes.barh(range(len(names)), values, color=_COLOR)
    axes.set_yticks(range(len(names)), names, size=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    return bars
