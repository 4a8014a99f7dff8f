"""Panels of curves over epochs, one per metric, stacked in a figure."""

import io
import warnings
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.checkpoints.history import RESERVED, epochs_of

FEW_EPOCHS = 20
"""Curves of fewer epochs get a dot for each."""
# Outliers are values above _ROOM times the quantile _BULK of a run's values.
_BULK, _ROOM = 0.9, 3.0


def as_png(draw: Callable[[], Figure], title: str | None = None) -> bytes:
    """Return the figure that `draw` creates as a PNG file, with Matplotlib's defaults, not the user's settings.

    Args:
        title: a title that is stored in the file, and not shown.
    """
    image = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks
        matplotlib.rcdefaults()
        matplotlib.rcParams["text.parse_math"] = False  # a name may hold dollar signs
        draw().savefig(image, format="png", dpi=120, metadata={"Title": title})
    return image.getvalue()


def metrics_of(history: dict) -> list[str]:
    """List the metrics of a history: loss, accuracy unless never measured, then others."""
    bases = {curve.removeprefix("ema_").removeprefix("val_"): None for curve, values in history.items() if values}
    further = [name for name in bases if name not in (*RESERVED, "loss", "accuracy")]
    has_accuracy = "accuracy" in bases or not epochs_of(history)
    return ["loss", *(["accuracy"] if has_accuracy else []), *further]


def stack(metrics: Sequence[str], epochs: int, above: float = 0.0) -> tuple[Figure, Sequence[Axes]]:
    """Create a figure with a panel per metric, over epochs from 1 to `epochs`; leave `above` inches above them."""
    height = 4.0 * len(metrics) + above  # inches
    figure = Figure(figsize=(8, height))
    # Fixed margins: an automatic layout would draw everything twice.
    right = 0.98 - 0.006 * max(0, len(str(epochs)) - 3)  # half of the last epoch's number is right of the panels
    margins = {"left": 0.135, "right": right, "bottom": 0.48 / height, "top": 1.0 - (0.24 + above) / height}
    grid = margins | {"hspace": 0.07}
    panels = figure.subplots(len(metrics), sharex=True, squeeze=False, gridspec_kw=grid)[:, 0]
    for panel, metric in zip(panels, metrics, strict=True):
        panel.set_ylabel(metric)
        panel.ticklabel_format(axis="y", scilimits=(-3, 4))
        panel.grid(alpha=0.3)
    panels[-1].set_xlabel("epoch")
    panels[-1].set_xlim(0.5, max(epochs, 1) + 0.5)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure, panels


def without_outliers(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Return the finite values of a run's `curves` in ascending order, without outliers that would flatten the rest."""
    values = np.sort(np.concatenate([[], *curves]))
    values = values[np.isfinite(values)]
    if not len(values) or max(map(len, curves)) < 3:
        return values
    bulk = values[int(_BULK * (len(values) - 1))]
    return values[values <= _ROOM * bulk] if bulk > 0 else values


def limit(panel: Axes, lowest: float, largest: float) -> float | None:
    """End the y axis just above `largest` if curves go beyond it; return the end, or None if they don't."""
    span = largest - lowest
    if largest >= panel.dataLim.ymax or not span:
        return None
    top = largest + 0.1 * span
    panel.set_ylim(lowest - 0.05 * span, top)
    return top
