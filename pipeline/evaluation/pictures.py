"""Pictures of a report: the confusion matrix and the reliability diagram."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.evaluation.calibration import Bin
from pipeline.evaluation.confusion import Confusion
from pipeline.plots.panels import as_png
from pipeline.utils.text import printable

# Up to this number of classes, the matrix has their names and the counts.
_NAMED = 25
_LONGEST = 24  # characters of a name
_DARK = 0.35  # a share whose colour is so dark that text on it is white


def confusion_png(matrix: np.ndarray, pairs: Sequence[Confusion], names: Sequence[str]) -> bytes:
    """Draw a confusion matrix as a PNG file.

    Args:
        matrix: images of each class by predicted class, integers (classes, classes).
        pairs: the most confused pairs, drawn by name beside the matrix if it has too many classes for their names.
        names: names of the classes.
    """
    names = [_shortened(name) for name in names]
    return as_png(lambda: _draw_named(matrix, names) if len(matrix) <= _NAMED else _draw_many(matrix, pairs, names))


def calibration_png(bins: Sequence[Bin], error: float) -> bytes:
    """Draw a reliability diagram as a PNG file: accuracy by confidence, above the number of images by confidence.

    Args:
        error: the expected calibration error.
    """
    return as_png(lambda: _draw_calibration(bins, error))


def _draw_calibration(bins: Sequence[Bin], error: float) -> Figure:
    figure = Figure(figsize=(6, 6.5), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    filled = [found for found in bins if found.count]
    accuracies, confidences = ([getattr(found, name) for found in filled] for name in ("accuracy", "confidence"))
    centres, width = [(found.low + found.high) / 2 for found in filled], 0.94 * (bins[0].high - bins[0].low)
    above.bar(centres, accuracies, width, label="accuracy")
    above.plot(confidences, accuracies, "o", color="black", markersize=4, label="mean confidence of the bin")
    above.plot([0, 1], [0, 1], "--", color="grey", label="perfect calibration")
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    above.set_title(f"expected calibration error {100 * error:.2f} %", fontsize="medium")
    above.legend(loc="best")
    above.grid(alpha=0.3)
    below.bar(centres, [found.count for found in filled], width, color="grey")
    below.set(xlabel="confidence", ylabel="images")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return figure


def _draw_named(matrix: np.ndarray, names: Sequence[str]) -> Figure:
    side = 3.0 + 0.5 * len(matrix)
    figure = Figure(figsize=(side + 0.5, side), layout="constrained")
    axes = figure.subplots()
    shares = _draw_shares(figure, axes, matrix)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if shares[row, column] > _DARK else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", fontsize=8, color=colour)
    return figure


def _draw_many(matrix: np.ndarray, pairs: Sequence[Confusion], names: Sequence[str]) -> Figure:
    figure = Figure(figsize=(15, 8), layout="constrained")
    axes, beside = figure.subplots(1, 2, width_ratios=[8, 4])
    _draw_shares(figure, axes, matrix)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(10, integer=True))
    texts = [f"{names[pair.label]} \N{RIGHTWARDS ARROW} {names[pair.predicted]}" for pair in pairs]
    beside.barh(range(len(pairs)), [100 * pair.share for pair in pairs])
    beside.set_yticks(range(len(pairs)), texts, fontsize=9)
    beside.invert_yaxis()
    beside.set_xlabel("images of the class, %")
    beside.set_title("the most confused: class \N{RIGHTWARDS ARROW} predicted as", fontsize="medium")
    return figure


def _draw_shares(figure: Figure, axes: Axes, matrix: np.ndarray) -> np.ndarray:
    """Draw the share of each class's images that is taken for each class; return the shares, (classes, classes)."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # The root makes rare confusions visible.
    picture = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    axes.set(xlabel="predicted class", ylabel="class")
    figure.colorbar(picture, ax=axes, shrink=0.6, label="share of the class's images")
    return shares


def _shortened(name: str) -> str:
    name = printable(name)
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
