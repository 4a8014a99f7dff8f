"""The page of a run: its curves, where it is, and all that its history records."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from pipeline.checkpoints.history import epochs_of
from pipeline.pages.chart import Chart, Curve, Mark, spans_magnitudes
from pipeline.pages.render import page
from pipeline.plots.panels import metrics_of

_MOST_CHARTS, _MOST_CHANGES = 16, 200
# Between the parts of the page that don't change inside an epoch.
_NOW = "<!-- now -->"


@dataclass(frozen=True)
class RunFacts:
    """What a run knows and its history doesn't.

    Args:
        name: that of the script, without its extension.
        epochs: number of the last epoch.
        command: the command line that goes on with the run, from the working directory `folder`; empty if unknown.
        files: the files that the run has written so far.
        reference: name and curves of a published run to compare with; None if there is none.
    """

    name: str
    epochs: int
    command: str = ""
    folder: Path = Path()
    files: Sequence[Path] = ()
    reference: tuple[str, Mapping[str, Sequence[float]]] | None = None


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Args:
        state: what it does, such as "training" or "finished".
        epoch: completed epochs.
        batch: completed training batches of the next one, of `steps`.
        images_per_second: None if unknown.
        seconds_left: None if unknown.
        metrics: loss and metrics of the current epoch so far.
        refresh: seconds until the page is written again; None if it won't be.
    """

    state: str
    epoch: int
    batch: int = 0
    steps: int = 0
    images_per_second: float | None = None
    seconds_left: float | None = None
    metrics: Mapping[str, float] | None = None
    refresh: float | None = None


def run_page(history: dict, facts: RunFacts) -> tuple[str, str]:
    """Return the page of a run before and after the part that `progress_part` makes."""
    done, run = epochs_of(history), history["run"]
    charts = _charts(history, facts.reference)
    columns = {curve.name: curve for chart in charts for curve in chart.curves}
    if seconds := history.get("seconds"):
        columns["seconds"] = Curve("seconds", "seconds", "", seconds)
    text = page(
        "run.html.j2",
        facts=facts,
        charts=[*charts[:-1][: _MOST_CHARTS - 1], charts[-1]] if done else [],
        columns=columns.values(),
        done=done,
        run=run,
        settings=_settings(run),
        summary=_summary(history),
        seconds=None if not seconds or None in seconds else sum(seconds),
        now=_NOW,
    )
    before, after = text.split(_NOW)
    return before, after


def progress_part(progress: Progress, facts: RunFacts) -> str:
    """Return the part of the page that shows where the run is."""
    now = time.time()
    written = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    return page("progress.html.j2", progress=progress, facts=facts, written=written, milliseconds=round(1000 * now))


def _charts(history: dict, reference: tuple[str, Mapping[str, Sequence[float]]] | None) -> list[Chart]:
    """Return a chart for each metric, loss and accuracy first, and one for the learning rate."""
    done, run = epochs_of(history), history["run"]
    steps = run.get("steps")
    changes = [
        Mark(epoch + (batch / steps if steps else 0.0), f"{rate:g}")
        for epoch, batch, rate in run.get("learning_rate_changes", ())[-_MOST_CHANGES:]
    ]
    charts = []
    for name in metrics_of(history):
        labels = {
            name: ("training", "train"),
            f"val_{name}": ("validation", "val"),
            f"ema_val_{name}": ("validation, averaged weights", "ema"),
        }
        curves = [Curve(curve, *label, history[curve]) for curve, label in labels.items() if history.get(curve)]
        if reference and f"val_{name}" in reference[1]:
            published = list(reference[1][f"val_{name}"][:done])
            published += [None] * (done - len(published))
            curves.append(
                Curve(f"published val_{name}", f"validation, published ({reference[0]})", "published", published)
            )
        is_log = spans_magnitudes([curve.values for curve in curves])
        charts.append(Chart(f"{name[:1].upper()}{name[1:]}".replace("_", " "), curves, done, changes, is_log))
    rates = history["learning_rate"]
    is_log = bool(changes) and all(rate and rate > 0 for rate in rates)
    charts.append(Chart("Learning rate", [Curve("learning_rate", "rate", "train", rates)], done, changes, is_log))
    return charts


def _settings(run: dict) -> list[tuple[str, str]]:
    """Return the settings of a run by name."""
    names = {"dataset": "data set", "data": "SHA-256 of the data", "steps": "steps per epoch"}
    settings = [(shown, str(run[name])) for name, shown in names.items() if name in run]
    precision = {"precision": run["precision"]} if "precision" in run else {}
    for name, value in (precision | run.get("arguments", {})).items():
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        settings.append((name, "none" if value is None else text))
    return settings


def _summary(history: dict) -> list[tuple[str, float, float, int]]:
    """Return the last and the best value of each curve of validation, with the epoch of the best."""
    summary = []
    for name, best_of in {"val_accuracy": max, "ema_val_accuracy": max, "val_loss": min, "ema_val_loss": min}.items():
        known = [(value, epoch) for epoch, value in enumerate(history.get(name, ()), 1) if value is not None]
        if known:
            best, epoch = best_of(known, key=itemgetter(0))
            summary.append((name, known[-1][0], best, epoch))
    return summary
