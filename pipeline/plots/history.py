"""Plot the curves of a run."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.checkpoints.history import epochs_of
from pipeline.plots.panels import FEW_EPOCHS, as_png, limit, metrics_of, stack, without_outliers

_MOST_PANELS, _MOST_CHANGES = 16, 200
# Width of an outlier's number and of a rate's label, as fractions of the epoch axis.
_NUMBER_WIDTH, _LABEL_WIDTH = 0.06, 0.03
_BACKGROUND = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}


def plot_png(history: dict) -> bytes:
    """Return `draw_history` as a PNG file."""
    return as_png(lambda: draw_history(history))


def draw_history(history: dict) -> Figure:
    """Draw a history: a panel per metric, loss first, over epochs from 1; mark learning rates set by hand."""
    names = metrics_of(history)[:_MOST_PANELS]
    epochs = np.arange(1, epochs_of(history) + 1)
    figure, panels = stack(names, len(epochs))
    changes = history["run"].get("learning_rate_changes", ())[-_MOST_CHANGES:]
    for panel, name in zip(panels, names, strict=True):
        labels = {name: "train", f"val_{name}": "validation", f"ema_val_{name}": "validation, averaged weights"}
        curves = {label: np.array(history[curve], float) for curve, label in labels.items() if history.get(curve)}
        for label, values in curves.items():
            panel.plot(epochs, values, label=label, marker="." if len(epochs) < FEW_EPOCHS else None)
        for epoch, batch, _ in changes:
            panel.axvline(_position(epoch, batch, history), color="grey", linestyle="--", linewidth=1)
        if curves:
            panel.legend(loc="best")
    is_limited = _limit_to_bulk(panels[0], len(epochs))
    # Below the numbers of outliers.
    _label_changes(panels[0], changes, history, height=0.8 if is_limited else 0.97)
    return figure


def _limit_to_bulk(panel: Axes, epochs: int) -> bool:
    """End the y axis below outliers that would flatten the curves, and label them; return True if there are any."""
    lines = [line for line in panel.lines if len(line.get_xdata()) == epochs]  # not those of learning rate changes
    curves = [line.get_ydata() for line in lines]
    kept = without_outliers(curves)
    top = limit(panel, kept[0], kept[-1]) if len(kept) else None
    if top is None:
        return False
    for number, (line, curve) in enumerate(zip(lines, curves, strict=True)):
        beyond = [epoch for epoch, value in enumerate(curve, 1) if value > top]
        for group in _grouped(beyond, _NUMBER_WIDTH * epochs):
            value, epoch = max((curve[beyond[index] - 1], beyond[index]) for index in group)
            panel.annotate(
                f"{value:.3g}",
                (epoch, top),
                xytext=(0, -12 * (number + 1)),
                textcoords="offset points",
                ha=_alignment(epoch, epochs),
                va="top",
                fontsize="small",
                color=line.get_color(),
                bbox=_BACKGROUND,
                arrowprops={"arrowstyle": "-|>", "color": line.get_color()},
            )
    return True


def _label_changes(panel: Axes, changes: Sequence[tuple[int, int, float]], history: dict, height: float) -> None:
    """Label the vertical lines of learning rate changes; lines that are close together share a label."""
    start, end = panel.get_xlim()
    positions = [_position(epoch, batch, history) for epoch, batch, _ in changes]
    for group in _grouped(positions, _LABEL_WIDTH * (end - start)):
        rates = [f"{changes[index][2]:g}" for index in group]
        shown = rates if len(rates) <= 3 else [rates[0], "...", rates[-1]]
        panel.annotate(
            f"learning rate {', '.join(shown)}",
            (positions[group[0]], height),
            xycoords=("data", "axes fraction"),
            rotation=90,
            va="top",
            ha="left" if positions[group[0]] - start < _LABEL_WIDTH * (end - start) else "right",
            color="grey",
            fontsize="small",
            bbox=_BACKGROUND,
        )


def _alignment(epoch: int, epochs: int) -> str:
    """Return the horizontal alignment that keeps a text at `epoch` inside the panel."""
    position = (epoch - 0.5) / epochs
    return "left" if position < _NUMBER_WIDTH else "right" if position > 1 - _NUMBER_WIDTH else "center"


def _grouped(positions: Sequence[float], width: float) -> list[list[int]]:
    """Group the indices of ascending `positions` that lie within `width` of the first of their group."""
    groups: list[list[int]] = []
    for index, position in enumerate(positions):
        if groups and position - positions[groups[-1][0]] < width:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _position(epoch: int, batch: int, history: dict) -> float:
    """Return the x position after `epoch` epochs and `batch` batches; epoch N spans N - 0.5 to N + 0.5."""
    steps = history["run"].get("steps")
    return epoch + 0.5 + (batch / steps if steps else 0.0)
