"""Plot the curves of a run."""

import io
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.checkpoints.history import RESERVED, epochs_of

_MOST_PANELS, _MOST_CHANGES = 16, 200
# Outliers are values above _ROOM times the quantile _BULK of a panel's values; the axis ends just above the others.
_BULK, _ROOM = 0.9, 3.0
# Width of an outlier's number and of a rate's label, as fractions of the epoch axis.
_NUMBER_WIDTH, _LABEL_WIDTH = 0.06, 0.03
_BACKGROUND = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}


def plot_png(history: dict) -> bytes:
    """Return `draw_history` as a PNG file."""
    return as_png(lambda: draw_history(history))


def as_png(draw: Callable[[], Figure]) -> bytes:
    """Return the figure that `draw` creates as a PNG file, with Matplotlib's defaults, not the user's settings."""
    image = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        draw().savefig(image, format="png", dpi=120)
    return image.getvalue()


def draw_history(history: dict) -> Figure:
    """Draw a history: a panel per metric, loss first, over epochs from 1; mark learning rates set by hand."""
    names = _metrics(history)
    height = 4.0 * len(names)  # inches
    figure = Figure(figsize=(8, height))
    # Fixed margins: an automatic layout would draw everything twice.
    margins = {"left": 0.135, "right": 0.98, "bottom": 0.48 / height, "top": 1.0 - 0.24 / height, "hspace": 0.07}
    panels = figure.subplots(len(names), sharex=True, squeeze=False, gridspec_kw=margins)[:, 0]
    epochs = np.arange(1, epochs_of(history) + 1)
    changes = history["run"].get("learning_rate_changes", ())[-_MOST_CHANGES:]
    for panel, name in zip(panels, names, strict=True):
        labels = {name: "train", f"val_{name}": "validation", f"ema_val_{name}": "validation, averaged weights"}
        curves = {label: np.array(history[curve], float) for curve, label in labels.items() if history.get(curve)}
        for label, values in curves.items():
            panel.plot(epochs, values, label=label, marker="." if len(epochs) < 20 else None)
        panel.set_ylabel(name)
        panel.ticklabel_format(axis="y", scilimits=(-3, 4))
        panel.grid(alpha=0.3)
        for epoch, batch, _ in changes:
            panel.axvline(_position(epoch, batch, history), color="grey", linestyle="--", linewidth=1)
        if curves:
            panel.legend(loc="best")
    panels[-1].set_xlabel("epoch")
    panels[-1].set_xlim(0.5, max(len(epochs), 1) + 0.5)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    is_limited = _limit_to_bulk(panels[0], len(epochs))
    # Below the numbers of outliers.
    _label_changes(panels[0], changes, history, height=0.8 if is_limited else 0.97)
    return figure


def _metrics(history: dict) -> list[str]:
    """List the metrics to draw: loss, accuracy unless never measured, then others; at most `_MOST_PANELS`."""
    bases = {curve.removeprefix("ema_").removeprefix("val_"): None for curve, values in history.items() if values}
    further = [name for name in bases if name not in (*RESERVED, "loss", "accuracy")]
    has_accuracy = "accuracy" in bases or not epochs_of(history)
    return ["loss", *(["accuracy"] if has_accuracy else []), *further][:_MOST_PANELS]


def _limit_to_bulk(panel: Axes, epochs: int) -> bool:
    """End the y axis below outliers that would flatten the curves, and label them; return True if there are any."""
    lines = [line for line in panel.lines if len(line.get_xdata()) == epochs]  # not those of learning rate changes
    curves = [line.get_ydata() for line in lines]
    if epochs < 3 or not curves:
        return False
    values = np.sort(np.concatenate(curves))
    values = values[np.isfinite(values)]
    if not len(values):
        return False
    bulk = values[int(_BULK * (len(values) - 1))]
    largest = values[values <= _ROOM * bulk][-1] if bulk > 0 else values[-1]
    span = largest - values[0]
    if largest == values[-1] or not span:
        return False
    top = largest + 0.1 * span
    panel.set_ylim(values[0] - 0.05 * span, top)
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
