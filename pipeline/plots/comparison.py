"""Plot the curves of several runs in one picture."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import median_low

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.checkpoints.history import epochs_of
from pipeline.plots.panels import FEW_EPOCHS, as_png, limit, metrics_of, stack, without_outliers

_MOST_PANELS = 4
# The curves of a metric by their prefix, and the style of each.
_CURVES = {"val_": "validation", "": "training", "ema_val_": "validation, averaged weights"}
_STYLES = {
    "val_": {"linewidth": 1.8, "zorder": 3},
    "": {"linewidth": 0.8, "alpha": 0.5},
    "ema_val_": {"linewidth": 1.8, "zorder": 3, "linestyle": "--", "markerfacecolor": "white"},
}
_MARK = {"marker": "^", "markersize": 5, "linestyle": "none"}
# Colours of up to twelve runs; more share a rainbow.
_COLOURS = (
    *("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:olive"),
    *("tab:cyan", "navy", "gold", "magenta"),
)
# A run whose loss is above _WILD times that of most runs is beyond the axis.
_WILD = 10.0
# Of the legend: height of a line in inches, length of a line and of the longest name in characters, and the characters
# that a name's sample and margin take.
_LINE_HEIGHT, _LINE_LENGTH, _LONGEST_NAME, _AROUND_NAME = 0.18, 100, 80, 9


def comparison_png(histories: Mapping[str, dict], references: Collection[str] = (), title: str | None = None) -> bytes:
    """Return `draw_comparison` as a PNG file that holds `title`."""
    return as_png(lambda: draw_comparison(histories, references), title)


def draw_comparison(histories: Mapping[str, dict], references: Collection[str] = ()) -> Figure:
    """Draw the curves of runs: a panel per metric, loss first, over epochs from 1.

    Triangles mark losses beyond the axis, which would flatten the curves.

    Args:
        histories: the history of each run by its name, at least one.
        references: names of runs to draw in grey, dotted.
    """
    metrics, styles = _shared_metrics(histories), _styles(histories, references)
    names = [_shortened(name) for name in histories]
    columns = min(4, len(names), max(1, _LINE_LENGTH // (max(map(len, names)) + _AROUND_NAME)))
    rows = 1 + -(-len(names) // columns)  # one for the kinds of curves
    figure, panels = stack(metrics, max(map(epochs_of, histories.values())), above=_LINE_HEIGHT * rows)
    kinds = {}
    for panel, metric in zip(panels, metrics, strict=True):
        for name, history in histories.items():
            for prefix, kind in _CURVES.items():
                if history.get(prefix + metric):
                    _draw_curve(panel, history[prefix + metric], _STYLES[prefix] | styles[name])
                    kinds[kind] = Line2D([], [], color="black", **_STYLES[prefix])
    if _limit_to_bulk(panels[0], histories.values()):
        kinds["beyond the axis"] = Line2D([], [], color="black", **_MARK)
    runs = [Line2D([], [], **_STYLES["val_"] | style) for style in styles.values()]
    _add_legend(figure, 0, list(kinds.values()), list(kinds), len(kinds))
    _add_legend(figure, 1, runs, names, columns)
    return figure


def _shared_metrics(histories: Mapping[str, dict]) -> list[str]:
    """List the metrics to draw: loss, accuracy if a run has it, and others that several runs have."""
    counts = Counter({"loss": 0, "accuracy": 0})
    for history in histories.values():
        counts.update(metrics_of(history))
    several = min(2, len(histories))
    shared = [name for name, count in counts.items() if count >= (1 if name in ("loss", "accuracy") else several)]
    return shared[:_MOST_PANELS]


def _styles(names: Collection[str], references: Collection[str]) -> dict[str, dict]:
    """Return the style of each run: a colour of its own, or for a reference a shade of grey, dotted."""
    own = sum(name not in references for name in names)
    colours = iter(_COLOURS if own <= len(_COLOURS) else matplotlib.colormaps["turbo"](np.linspace(0, 1, own)))
    greys = iter(np.linspace(0.2, 0.6, len(names) - own))
    return {
        name: {"color": f"{next(greys)}", "linestyle": ":"} if name in references else {"color": next(colours)}
        for name in names
    }


def _draw_curve(panel: Axes, numbers: Sequence[float | None], style: Mapping[str, object]) -> None:
    """Draw a curve; its line leads across epochs that were not measured."""
    values = np.array(numbers, float)
    (measured,) = np.isfinite(values).nonzero()
    panel.plot(measured + 1, values[measured], marker="." if len(measured) < FEW_EPOCHS else None, **style)


def _limit_to_bulk(panel: Axes, histories: Collection[dict]) -> bool:
    """End the loss axis below outliers that would flatten the curves, and mark them; return True if there are any."""
    runs = [[np.array(history.get(f"{prefix}loss", ()), float) for prefix in _CURVES] for history in histories]
    bulks = [bulk for run in runs if len(bulk := without_outliers(run))]
    if not bulks:
        return False
    most = _WILD * median_low(bulk[-1] for bulk in bulks)
    largest = max(bulk[-1] for bulk in bulks if bulk[-1] <= most or most <= 0)
    top = limit(panel, min(bulk[0] for bulk in bulks), largest)
    if top is None:
        return False
    for line in list(panel.lines):
        epochs = line.get_xdata()[line.get_ydata() > top]
        panel.plot(epochs, np.full(len(epochs), top), color=line.get_color(), clip_on=False, zorder=4, **_MARK)
    return True


def _add_legend(figure: Figure, row: int, samples: Sequence[Line2D], texts: Sequence[str], columns: int) -> None:
    """Add a legend above the panels, from line `row` on."""
    top = 1 - (0.08 + _LINE_HEIGHT * row) / figure.get_figheight()
    legend = figure.legend(
        samples,
        [" "] * len(texts),
        loc="upper left",
        bbox_to_anchor=(0.135, top),
        ncols=columns,
        fontsize="small",
        frameon=False,
        borderpad=0,
        borderaxespad=0,
    )
    # As a label, a name that begins with an underscore would be left out.
    for shown, text in zip(legend.get_texts(), texts, strict=True):
        shown.set_text(text)


def _shortened(name: str) -> str:
    half = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[: half - 2]}...{name[-half:]}"
