"""The curves of a run as a picture."""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.checkpoints.history import RESERVED, epochs_of

_MOST_PANELS, _MOST_CHANGES = 16, 200
# Of all values of a panel the least nine tenths are its bulk; the axis goes up to so many times the largest of those.
_BULK, _ROOM = 0.9, 3.0
# Shares of the axis of epochs that the numbers of points beyond it, and labels of rates, take.
_NUMBER_WIDTH, _LABEL_WIDTH = 0.06, 0.03
_BACKGROUND = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}


def plot_png(history: dict) -> bytes:
    """The PNG file of `draw_history`, drawn with Matplotlib's own defaults, whatever a user's settings say."""
    image = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        draw_history(history).savefig(image, format="png", dpi=120)
    return image.getvalue()


def draw_history(history: dict) -> Figure:
    """A figure of a history: a panel for each metric, loss first, from epoch 1; learning rates set by hand marked."""
    names = _metrics(history)
    height = 4.0 * len(names)  # inches
    figure = Figure(figsize=(8, height))
    # Fixed margins: a layout that is fitted draws everything twice, at the end of each epoch.
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
            panel.axvline(_place(epoch, batch, history), color="grey", linestyle="--", linewidth=1)
        if curves:
            panel.legend(loc="best")
    panels[-1].set_xlabel("epoch")
    panels[-1].set_xlim(0.5, max(len(epochs), 1) + 0.5)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    is_limited = _limit_to_bulk(panels[0], len(epochs))
    # Below the numbers of what lies beyond the axis.
    _label_changes(panels[0], changes, history, height=0.8 if is_limited else 0.97)
    return figure


def _metrics(history: dict) -> list[str]:
    """List the metrics to draw: loss, accuracy unless it was never measured, then others, `_MOST_PANELS` at most."""
    bases = {curve.removeprefix("ema_").removeprefix("val_"): None for curve, values in history.items() if values}
    further = [name for name in bases if name not in (*RESERVED, "loss", "accuracy")]
    has_accuracy = "accuracy" in bases or not epochs_of(history)
    return ["loss", *(["accuracy"] if has_accuracy else []), *further][:_MOST_PANELS]


def _limit_to_bulk(panel: Axes, epochs: int) -> bool:
    """End the axis of values where a few far above the others would flatten them; mark those, and say what they are."""
    lines = [line for line in panel.lines if len(line.get_xdata()) == epochs]  # of those of changed rates none
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
                ha=_towards_the_middle(epoch, epochs),
                va="top",
                fontsize="small",
                color=line.get_color(),
                bbox=_BACKGROUND,
                arrowprops={"arrowstyle": "-|>", "color": line.get_color()},
            )
    return True


def _label_changes(panel: Axes, changes: Sequence[tuple[int, int, float]], history: dict, height: float) -> None:
    """Name the rates beside their lines, those of lines close together on one label."""
    start, end = panel.get_xlim()
    places = [_place(epoch, batch, history) for epoch, batch, _ in changes]
    for group in _grouped(places, _LABEL_WIDTH * (end - start)):
        rates = [f"{changes[index][2]:g}" for index in group]
        shown = rates if len(rates) <= 3 else [rates[0], "...", rates[-1]]
        panel.annotate(
            f"learning rate {', '.join(shown)}",
            (places[group[0]], height),
            xycoords=("data", "axes fraction"),
            rotation=90,
            va="top",
            ha="left" if places[group[0]] - start < _LABEL_WIDTH * (end - start) else "right",
            color="grey",
            fontsize="small",
            bbox=_BACKGROUND,
        )


def _towards_the_middle(epoch: int, epochs: int) -> str:
    """How to align a text at an epoch so that it stays within the panel."""
    place = (epoch - 0.5) / epochs
    return "left" if place < _NUMBER_WIDTH else "right" if place > 1 - _NUMBER_WIDTH else "center"


def _grouped(places: Sequence[float], width: float) -> list[list[int]]:
    """The indices of ascending `places`, in groups that each lie within `width` of their first."""
    groups: list[list[int]] = []
    for index, place in enumerate(places):
        if groups and place - places[groups[-1][0]] < width:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _place(epoch: int, batch: int, history: dict) -> float:
    """Where on the axis of epochs a moment stands, on which epoch N goes from N - 0.5 to N + 0.5."""
    steps = history["run"].get("steps")
    return epoch + 0.5 + (batch / steps if steps else 0.0)
