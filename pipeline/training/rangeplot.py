"""Plot a learning rate range test."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pipeline.training.rangetest import RangeTest

# A curve of fewer steps gets a dot for each.
_FEW_STEPS = 50
# Room above the losses up to the minimum, as a fraction of their range.
_ROOM = 0.3


def draw_range_test(test: RangeTest) -> Figure:
    """Draw loss and smoothed loss over the learning rate, and mark the suggestions, with their values."""
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    marker = "." if len(test.rates) < _FEW_STEPS else None
    axes.plot(test.rates, test.losses, color="C0", alpha=0.4, linewidth=1, marker=marker, label="loss of each step")
    axes.plot(test.rates, test.smoothed, color="C0", label="smoothed")
    # Both may be at the same rate: then the diamond is inside the circle.
    for name, rate, style, size in (("valley", test.valley, "C1o", 9), ("steepest slope", test.steepest, "C3d", 5)):
        if rate is not None:
            loss = test.smoothed[test.rates.index(rate)]
            axes.axvline(rate, color=style[:2], linestyle="--", linewidth=1)
            axes.plot(rate, loss, style, markersize=size, label=f"{name}: {rate:.2g}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")  # where no loss is yet
    _limit(axes, test)
    return figure


def _limit(axes: Axes, test: RangeTest) -> None:
    """Show the losses up to the minimum, and a part of what follows, which may be thousands of times higher."""
    falling = slice(test.rates.index(test.lowest) + 1)
    shown = [*test.losses[falling], *test.smoothed[falling]]
    low, high = min(shown), max(shown)
    span = max(high - low, 0.1 * low)
    axes.set_ylim(low - 0.1 * span, high + _ROOM * span)
