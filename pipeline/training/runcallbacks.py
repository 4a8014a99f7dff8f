"""Combine the callbacks of a script with those of its run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras

from pipeline.callbacks import (
    AsyncCallbackList,
    BatchCheckpoint,
    BatchFeed,
    EpochCheckpoint,
    EpochClock,
    LearningRate,
    RunCallbacks,
    TrainingMonitor,
    WeightAverage,
)
from pipeline.callbacks.logs import CSVLog, EpochLine, RunPage, TensorBoardLog
from pipeline.callbacks.steering import Requests, Steering
from pipeline.callbacks.stopping import StopMenu
from pipeline.callbacks.trainingmonitor import CurveWriter
from pipeline.checkpoints.checkpoint import progress_in
from pipeline.checkpoints.folder import list_checkpoints
from pipeline.checkpoints.history import epochs_of
from pipeline.errors import InputError, as_input_error
from pipeline.io.batches import Batches
from pipeline.pages import RunFacts
from pipeline.training.reports import tables_beside
from pipeline.training.runs import Run


@dataclass(frozen=True)
class Outputs:
    """The callbacks that write the curves of a run.

    Args:
        monitors: those that write plots and histories.
        csv_logs: those that write CSV files.
        tensorboard_logs: those that write files for TensorBoard.
        pages: those that write pages for the browser.
        superseded: what other processes of the run wrote for TensorBoard beyond the resumed checkpoint.
    """

    monitors: Sequence[TrainingMonitor]
    csv_logs: Sequence[CSVLog]
    tensorboard_logs: Sequence[TensorBoardLog]
    pages: Sequence[RunPage]
    superseded: Sequence[Path]

    @property
    def curves(self) -> dict[Path, Path | None]:
        """The files of plots, histories and pages, each with the JSON file of its history, or None.

        A page beside a history is one of them, even if the run writes none: it belongs to the run of that history.
        """
        beside = {path.with_suffix(".html"): path for path in self.histories}
        return self.plots | beside | {page.path: next(iter(self.histories), None) for page in self.pages}

    @property
    def plots(self) -> dict[Path, Path | None]:
        """The files of plots and histories, each with the JSON file of its history, or None."""
        return {
            path: monitor.json_path
            for monitor in self.monitors
            for path in (monitor.json_path, monitor.fig_path)
            if path
        }

    @property
    def histories(self) -> list[Path]:
        """The JSON files of the histories."""
        return [monitor.json_path for monitor in self.monitors if monitor.json_path]

    @property
    def writers(self) -> list[CurveWriter]:
        """The callbacks that write the history to files of their own."""
        return [*self.monitors, *self.csv_logs, *self.pages]

    @property
    def failures(self) -> int:
        """Number of failed writes."""
        return sum(writer.failures for writer in (*self.writers, *self.tensorboard_logs))

    def foreign_logs(self) -> list[Path]:
        """Return CSV files that hold other epochs than the run's, and what is superseded."""
        return [*(log.path for log in self.csv_logs if log.is_foreign()), *self.superseded]

    def written(self) -> list[Path]:
        """Return the files, and folders for TensorBoard, that hold the run's current curves."""
        curves = [
            path for monitor in self.monitors if monitor.is_written for path in (monitor.fig_path, monitor.json_path)
        ]
        others = [writer.path for writer in (*self.csv_logs, *self.pages) if writer.is_written]
        folders = [Path(log.log_dir) for log in self.tensorboard_logs]
        return [*filter(None, curves), *others, *filter(Path.exists, folders)]


def bind(run: Run, callbacks: Sequence[keras.callbacks.Callback]) -> Outputs:
    """Give the run's history and checkpoints to the callbacks that write them; return those that write curves.

    Raises:
        InputError: an `EpochCheckpoint` writes to another folder than the run's, or two callbacks write to one file.
    """
    superseded = []
    for callback in callbacks:
        if isinstance(callback, CurveWriter):
            callback.history = run.history
        elif isinstance(callback, TensorBoardLog):
            superseded += callback.bind(run.script, run.identity, len(run.history["run"]["sittings"]))
        elif isinstance(callback, EpochCheckpoint):
            folder = callback.checkpoints.folder
            if folder.resolve() != run.folder.resolve():
                raise InputError(f"EpochCheckpoint writes to {folder}; expected the run's folder, {run.folder}")
            callback.checkpoints = run.checkpoints
    monitors, csv_logs, tensorboard_logs, pages = (
        [callback for callback in callbacks if isinstance(callback, of)]
        for of in (TrainingMonitor, CSVLog, TensorBoardLog, RunPage)
    )
    outputs = Outputs(monitors, csv_logs, tensorboard_logs, pages, superseded)
    for page in pages:
        page.describe = partial(_facts_of, run, outputs, page.path.stem, Path.cwd())
    taken = [*outputs.plots, *tables_beside(outputs.plots), *([] if run.model_path is None else [run.model_path])]
    for writer in (*csv_logs, *pages):
        if writer.path.resolve() in {path.resolve() for path in taken}:
            what = "`csv`" if writer in csv_logs else "the page"
            raise InputError(f"{what} {writer.path} is another file of the run; name another")
        taken.append(writer.path)
    return outputs


def _facts_of(run: Run, outputs: Outputs, name: str, folder: Path) -> RunFacts:
    """Return what the page `name` of a run started in `folder` shows beside the history."""
    models = [] if run.model_path is None else [run.model_path]
    ended = [path for path in models if progress_in(path) == (epochs_of(run.history), 0)]
    files = [folder / path for path in (*outputs.written(), *list_checkpoints(run.folder)[-1:], *ended)]
    return RunFacts(name, run.args.epochs, run.command, folder, files, run.reference)


def rate_of(run: Run, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback]) -> LearningRate:
    """Return the `LearningRate` among `callbacks`, else a new one, bound to the run and changed to its `new_lr`.

    Raises:
        InputError: another scheduler sets the rate, or the rate has decayed to 0.
    """
    owners = [callback for callback in callbacks if isinstance(callback, LearningRate)]
    rate = owners[0] if owners else LearningRate()
    rate.set_model(model)
    rate.history = run.history
    rate.overruled_by = next(
        (
            type(callback).__name__
            for callback in callbacks
            if isinstance(callback, keras.callbacks.LearningRateScheduler) and callback is not rate
        ),
        None,
    )
    if run.resumed is None:
        rate.start()
    elif run.new_lr is not None and rate.differs(run.new_lr):
        epoch, batch = run.progress
        with as_input_error(InputError, f"`lr` {run.new_lr:g}: ", "; omit it"):
            # If only the validation of an epoch is left, the change belongs to the next one.
            rate.change(run.new_lr, *((epoch + 1, 0) if batch == run.history["run"]["steps"] else (epoch, batch)))
    return rate


def start_averages(
    run: Run, model: keras.Model, steps: int, callbacks: Sequence[keras.callbacks.Callback]
) -> list[WeightAverage]:
    """Start the `WeightAverage` callbacks at the run's progress, from the checkpoint's averages; return them.

    Raises:
        InputError: only one of checkpoint and run averages weights.
    """
    averages = [callback for callback in callbacks if isinstance(callback, WeightAverage) and callback.decay]
    epoch, batch = run.progress
    for callback in averages:
        callback.set_model(model)
        run.checkpoints.average = callback.start(epoch * steps + batch)
    if run.resumed is not None:
        if run.resumed.averaged != bool(averages):
            has, expected = ("holds", "a WeightAverage") if run.resumed.averaged else ("lacks", "no WeightAverage")
            raise InputError(f"checkpoint {run.resumed.path} {has} averaged weights; expected {expected} in the run")
        for callback in averages:
            callback.average.restore(run.resumed.averages)
    return averages


def callback_list(
    run: Run,
    model: keras.Model,
    train: Batches,
    callbacks: Sequence[keras.callbacks.Callback],
    rate: LearningRate,
    requests: Requests,
) -> RunCallbacks:
    """Combine `callbacks` with the run's own, in the order in which they must be called."""
    resumed, checkpoints, last = run.resumed, run.checkpoints, run.last
    averages = start_averages(run, model, train.steps, callbacks)
    clock = EpochClock(resumed.seconds if resumed else 0.0)
    menu = StopMenu(requests.stop, run.ask, rate, train.steps, last)
    steering, seconds = Steering(requests, checkpoints, menu), run.args.checkpoint_seconds
    batch_checkpoint = BatchCheckpoint(checkpoints, requests.stop, train.steps, menu, seconds, resumed, steering)
    for callback in averages:
        pages = [callback for callback in callbacks if isinstance(callback, RunPage)]
        callback.callbacks = AsyncCallbackList([*pages, batch_checkpoint], model=model)
    others = [
        callback
        for callback in callbacks
        if callback is not rate and not isinstance(callback, (WeightAverage, EpochCheckpoint))
    ]
    every = RunCallbacks(
        [
            BatchFeed(train, resumed),
            *averages,
            clock,
            rate,
            *others,
            *([] if run.draws_progress else [EpochLine()]),
            *(callback for callback in callbacks if isinstance(callback, EpochCheckpoint)),
            batch_checkpoint,
        ],
        rate,
        resumed,
        add_history=True,
        add_progbar=run.draws_progress,
        model=model,
        verbose=1,
        epochs=last,
        steps=train.steps,
    )
    checkpoints.seconds, checkpoints.callbacks = clock.seconds, every.stateful
    return every
