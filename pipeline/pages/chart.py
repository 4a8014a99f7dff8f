"""Line charts over epochs, as the coordinates and texts that a template draws."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from pipeline.pages.render import number
from pipeline.plots.panels import without_outliers

# Width and height of a chart's coordinates, which are stretched to the size of the screen.
SIDE = 1000
# Labels of marks closer than this fraction of the width would overlap.
_LABEL_WIDTH = 0.04


@dataclass(frozen=True)
class Curve:
    """A curve of a chart: one number per epoch, None where it wasn't measured.

    Args:
        name: its column in the table of numbers.
        label: its name in the legend.
        style: its CSS class.
    """

    name: str
    label: str
    style: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Mark:
    """A vertical line at `position`, in completed epochs."""

    position: float
    label: str


@dataclass(frozen=True)
class Chart:
    """A chart of `curves` over the epochs 1 to `epochs`.

    Args:
        is_log: draw the values on a logarithmic scale; all must be above 0.
    """

    title: str
    curves: Sequence[Curve]
    epochs: int
    marks: Sequence[Mark] = ()
    is_log: bool = False

    @cached_property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest value of the vertical axis."""
        return _limits([curve.values[: self.epochs] for curve in self.curves], self.is_log)

    @cached_property
    def ticks(self) -> list[tuple[float, str]]:
        """The heights of the ticks of the vertical axis, as fractions from the bottom, and their labels."""
        low, high = self.limits
        locator = MaxNLocator(5, steps=[1, 2, 5, 10])
        if self.is_log:
            locator = LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,), numticks=6)
        values = [value for value in locator.tick_values(low, high) if low <= value <= high] or [low]
        return [(self._height(value), label) for value, label in zip(values, _labels(values), strict=True)]

    @cached_property
    def epoch_ticks(self) -> list[tuple[float, str]]:
        """The positions of the ticks of the horizontal axis, as fractions from the left, and their labels."""
        values = MaxNLocator(8, integer=True, min_n_ticks=1).tick_values(1, self.epochs)
        return [((value - 0.5) / self.epochs, f"{value:.0f}") for value in values if 1 <= value <= self.epochs]

    def path(self, curve: Curve) -> str:
        """Return the path of a curve in SVG's syntax. It has a gap where a value is missing."""
        commands, is_down = [], False
        for point in self._points(curve):
            if point is not None:
                # A point between two gaps needs a length to be seen.
                commands.append(f"L{point}" if is_down else f"M{point}h0")
            is_down = point is not None
        return "".join(commands)

    def dots(self, curve: Curve) -> str:
        """Return a path that has a dot at each point of a curve."""
        return "".join(f"M{point}h0" for point in self._points(curve) if point is not None)

    def _points(self, curve: Curve) -> Iterator[str | None]:
        """Yield the coordinates of each epoch; None where the value is missing."""
        for epoch, value in enumerate(curve.values[: self.epochs]):
            x = SIDE * (epoch + 0.5) / self.epochs
            yield None if value is None else f"{x:.1f} {SIDE * (1 - self._height(value)):.1f}"

    @property
    def lines(self) -> list[tuple[float, str]]:
        """The positions of the marks, as fractions from the left, and their labels; marks close together share one."""
        placed: list[tuple[float, str]] = []
        labelled = -math.inf
        for mark in self.marks:
            position = mark.position / self.epochs
            is_free = position - labelled >= _LABEL_WIDTH
            labelled = position if is_free else labelled
            placed.append((position, mark.label if is_free else ""))
        return [(position, label) for position, label in placed if 0 <= position <= 1]

    @property
    def outliers(self) -> str:
        """Describe the values beyond the top of the chart; empty if there are none."""
        beyond = [
            (value, epoch, curve.label)
            for curve in self.curves
            for epoch, value in enumerate(curve.values[: self.epochs], 1)
            if value is not None and value > self.limits[1]
        ]
        if not beyond:
            return ""
        value, epoch, label = max(beyond)
        count = "1 value is" if len(beyond) == 1 else f"{len(beyond):,} values are"
        return f"{count} beyond the top; the largest, {number(value)}, is that of epoch {epoch} ({label})"

    @property
    def description(self) -> str:
        """Describe the chart for those who don't see it."""
        texts = []
        for curve in self.curves:
            known = [(value, epoch) for epoch, value in enumerate(curve.values[: self.epochs], 1) if value is not None]
            if known:
                (low, at_low), (high, at_high) = (of(known, key=itemgetter(0)) for of in (min, max))
                texts.append(
                    f"{curve.label}: {number(known[0][0])} in epoch {known[0][1]}, {number(known[-1][0])} in epoch "
                    f"{known[-1][1]}, lowest {number(low)} in epoch {at_low}, highest {number(high)} in epoch {at_high}"
                )
        return f"{self.title} by epoch. {'. '.join(texts)}."

    def _height(self, value: float) -> float:
        """Return the height of a value as a fraction from the bottom, at most a little above the top."""
        low, high = self.limits
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return min((value - low) / (high - low), 1.1)


def spans_magnitudes(curves: Sequence[Sequence[float | None]]) -> bool:
    """Return whether a linear axis would flatten most of `curves`: all values are above 0, and differ by 1e4 times."""
    low = min((value for values in curves for value in values if value is not None), default=0.0)
    return low > 0 and _limits(curves, is_log=False)[1] > 1e4 * low


def _labels(values: Sequence[float]) -> list[str]:
    """Return `values` as texts, with as few digits from six on as tell them apart."""
    texts = ([f"{value:.{digits}g}" for value in values] for digits in range(6, 18))
    return next(labels for labels in texts if len({*labels}) == len(labels))


def _limits(curves: Sequence[Sequence[float | None]], is_log: bool) -> tuple[float, float]:
    """Return the ends of an axis that shows the bulk of `curves`, with room on both sides."""
    known = [np.array([value for value in values if value is not None]) for values in curves]
    values = np.concatenate([[], *known])
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if is_log:
        return low / 1.5, high * 1.5
    high = float(without_outliers(known)[-1])
    room = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return low - room, high + room
