"""Train a run from its first step to its last, and report its accuracy."""

import gc
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import keras

from pipeline.callbacks import (
    AsyncCallbackList,
    BatchCheckpoint,
    BatchFeed,
    EpochCheckpoint,
    EpochClock,
    EpochLine,
    LearningRate,
    RunCallbacks,
    TrainingMonitor,
    WeightAverage,
)
from pipeline.callbacks.stopping import StopMenu, Stopped, StopRequest
from pipeline.checkpoints.checkpoint import progress_in
from pipeline.checkpoints.compiled import check_compiled, precision_of
from pipeline.checkpoints.folder import list_checkpoints
from pipeline.checkpoints.history import epochs_of
from pipeline.data.source import DataSource
from pipeline.errors import InputError
from pipeline.io.batches import Batches, data_errors
from pipeline.report import FitResult, report, tables_beside
from pipeline.runs import Run

__all__ = ["Run", "fit", "report"]

_log = logging.getLogger(__name__)


def fit(
    run: Run,
    model: keras.Model,
    data: DataSource,
    train: Batches,
    val: Batches,
    callbacks: Sequence[keras.callbacks.Callback],
) -> FitResult:
    """Train the compiled `model` up to the last epoch, `stop_after`, or a request to stop.

    Resumes exactly from the run's checkpoint. If the run averages weights, `model` has the averages at the end. Files
    of another run, or of this run beyond the resumed checkpoint, are moved to a subfolder `earlier-1`, `earlier-2`, ...
    A failing disk doesn't stop the run.

    Args:
        data: the data set of `train` and `val`.
        callbacks: callbacks of Keras and of this project, in any order: `WeightAverage` and `LearningRate` are called
            before the others, because they add to the logs, and `EpochCheckpoint` after them.

    Raises:
        InputError: the checkpoint has another data set, model or optimizer, or is inside an epoch after the last one; a
            checkpoint can't hold the compiled model; a callback prevents an exact resume; another process is training
            in one of the folders; or the loss diverges.
        SystemExit: a signal such as Ctrl+C or SIGTERM asked to stop, or a callback stopped the training inside an
            epoch. The state is saved; if that failed, the exit code is 1.
    """
    _check_fit(run, model, train, val, callbacks)
    run.begin(data, train, precision_of(model))
    if run.resumed is not None:
        run.resumed.restore(model)
    rate = _rate_of(run, model, callbacks)
    monitors = _bind(run, callbacks)
    outputs = {
        path: monitor.json_path for monitor in monitors for path in (monitor.json_path, monitor.fig_path) if path
    }
    models = [] if run.model_path is None else [run.model_path]
    checkpoints, done, last = run.checkpoints, run.progress[0], run.last
    with run.locked(outputs) as stop:
        if done < last:
            run.move_earlier_aside([*list_checkpoints(run.folder), *models], outputs | tables_beside(outputs))
            _log.info(
                f"{model.count_params():,} parameters, {train.num_images:,} training and {val.num_images:,} validation "
                f"images, {train.steps} steps per epoch, {keras.backend.backend()} on "
                f"{run.history['run']['sittings'][-1]['device']}"
            )
            _train(run, model, train, val, _callback_list(run, model, train, callbacks, rate, stop))
        else:
            _log.info(f"epoch {last} is already done; there is nothing to train")
            tables = tables_beside(outputs)
            run.move_earlier_aside(models, {table: path for table, path in tables.items() if not path.exists()})
            _start_averages(run, model, train.steps, callbacks)
        _finish(run, model, monitors)
    if stop:  # after the last batch
        sys.exit(stop.exit_code)
    if checkpoints.average is not None:
        checkpoints.average.swap_in()
    done = epochs_of(run.history)
    if last <= done < run.args.epochs:
        _log.info(f"{done} of {run.args.epochs} epochs are done; resume with: {run.command}")
    return _result(run, monitors, models)


def _check_fit(
    run: Run, model: keras.Model, train: Batches, val: Batches, callbacks: Sequence[keras.callbacks.Callback]
) -> None:
    """Raise `InputError` if the model doesn't fit the batches, or the run couldn't resume exactly."""
    check_compiled(model)
    shape = tuple(model.network[name] for name in ("height", "width", "depth"))
    for batches in (train, val):
        if batches.image_shape != shape:
            of_data = f" of `data` {run.args.data}" if run.args.data else ""
            raise InputError(f"the images{of_data} have shape {batches.image_shape}; the model expects {shape}")
    for callback in callbacks:
        name = type(callback).__name__
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise InputError(f"{name} would undo the exact resume of the run's checkpoint; remove it")
        if getattr(callback, "restore_best_weights", False):
            raise InputError(f"{name}: checkpoints can't hold its best weights; set restore_best_weights=False")
    if run.args.warmup_epochs and not getattr(model.optimizer, "warmup_steps", 0):
        raise InputError(
            f"`warmup_epochs` {run.args.warmup_epochs}: {type(model.optimizer).__name__} has no warm-up; set it to 0, "
            "or compile with WarmupSGD"
        )


def _bind(run: Run, callbacks: Sequence[keras.callbacks.Callback]) -> list[TrainingMonitor]:
    """Give the run's history and checkpoints to the callbacks that write them; return the monitors.

    Raises:
        InputError: an `EpochCheckpoint` writes to another folder than the run's.
    """
    monitors = [callback for callback in callbacks if isinstance(callback, TrainingMonitor)]
    for monitor in monitors:
        monitor.history = run.history
    for callback in callbacks:
        if isinstance(callback, EpochCheckpoint):
            folder = callback.checkpoints.folder
            if folder.resolve() != run.folder.resolve():
                raise InputError(f"EpochCheckpoint writes to {folder}; expected the run's folder, {run.folder}")
            callback.checkpoints = run.checkpoints
    return monitors


def _rate_of(run: Run, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback]) -> LearningRate:
    """Return the `LearningRate` among `callbacks`, else a new one, bound to the run and changed to its `new_lr`.

    Raises:
        InputError: another scheduler sets the rate, or the rate has decayed to 0.
    """
    owners = [callback for callback in callbacks if isinstance(callback, LearningRate)]
    rate = owners[0] if owners else LearningRate()
    rate.set_model(model)
    rate.history = run.history
    if run.resumed is None:
        rate.start()
    elif run.new_lr is not None and rate.differs(run.new_lr):
        schedulers = [
            scheduler
            for scheduler in callbacks
            if isinstance(scheduler, keras.callbacks.LearningRateScheduler) and scheduler is not rate
        ]
        if schedulers:
            name = type(schedulers[0]).__name__
            raise InputError(f"`lr` {run.new_lr:g}: the script's {name} sets the rate of each epoch; change it there")
        epoch, batch = run.progress
        # If only the validation of an epoch is left, the change belongs to the next one.
        rate.change(run.new_lr, *((epoch + 1, 0) if batch == run.history["run"]["steps"] else (epoch, batch)))
    return rate


def _start_averages(
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


def _callback_list(
    run: Run,
    model: keras.Model,
    train: Batches,
    callbacks: Sequence[keras.callbacks.Callback],
    rate: LearningRate,
    stop: StopRequest,
) -> RunCallbacks:
    """Combine `callbacks` with the run's own, in the order in which they must be called."""
    resumed, checkpoints, last = run.resumed, run.checkpoints, run.last
    averages = _start_averages(run, model, train.steps, callbacks)
    clock = EpochClock(resumed.seconds if resumed else 0.0)
    menu = StopMenu(stop, run.ask, rate, train.steps, last)
    batch_checkpoint = BatchCheckpoint(checkpoints, stop, train.steps, menu, run.args.checkpoint_seconds, resumed)
    for callback in averages:
        callback.callbacks = AsyncCallbackList([batch_checkpoint], model=model)
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


def _train(run: Run, model: keras.Model, train: Batches, val: Batches, callbacks: RunCallbacks) -> None:
    """Train from the run's progress to its last epoch; raise `SystemExit` if it stops inside an epoch or on request."""
    (epoch, batch), last = run.progress, run.last
    exit_code = None
    try:
        callbacks.begin()
        run.checkpoints.check_callbacks()
        if batch and not model.stop_training:
            # Keras fixes the number of batches per call of fit: the rest of an epoch needs a call of its own.
            _finish_epoch(run, model, train, val, callbacks)
            epoch += 1
            train.set_epoch(epoch)
        if epoch < last and not model.stop_training:
            _fit(model, train, val, (epoch, last), callbacks)
    except Stopped as stopped:
        exit_code = stopped.exit_code
        if exit_code == 0:
            _log.info(f"a callback stopped the training inside epoch {epochs_of(run.history) + 1}")
    except Exception as error:
        if error in (train.failure, val.failure):
            with suppress(OSError, InputError):  # the first error is the one to report
                _batch_checkpoint_of(callbacks).save_after_failure()
                run.report_resume()
        raise
    callbacks.end()
    if exit_code is not None:
        run.report_resume()
        # TensorFlow's iterators log errors if they outlive the interpreter.
        gc.collect()
        sys.exit(exit_code)
    if (done := epochs_of(run.history)) < last:
        _log.info(f"a callback stopped the training after epoch {done}")


def _batch_checkpoint_of(callbacks: RunCallbacks) -> BatchCheckpoint:
    return next(callback for callback in callbacks.callbacks if isinstance(callback, BatchCheckpoint))


def _fit(
    model: keras.Model, train: Batches, val: Batches, epochs: tuple[int, int], callbacks: AsyncCallbackList
) -> None:
    """Train the epochs from `epochs[0]`, the number of completed ones, to `epochs[1]`, the number of the last."""
    initial_epoch, last = epochs
    with callbacks, data_errors(train, val):
        model.fit(
            train.for_keras(),
            validation_data=val.for_keras(),
            initial_epoch=initial_epoch,
            epochs=last,
            callbacks=callbacks,
            # Already shuffled. Keras would shuffle again, from a random state that no checkpoint holds.
            shuffle=False,
            verbose=0,
        )


def _finish_epoch(run: Run, model: keras.Model, train: Batches, val: Batches, callbacks: RunCallbacks) -> None:
    """Train the rest of the epoch that `run` resumes in, and validate."""
    epoch, batch = run.progress
    if batch < train.steps:
        train.set_epoch(epoch, batch)
        _fit(model, train, val, (epoch, epoch + 1), callbacks)
        return
    # Only the validation is left, which `fit` can't do alone.
    callbacks.on_epoch_begin(epoch)
    with data_errors(val):
        val_logs = model.evaluate(val.for_keras(), verbose=0, return_dict=True, callbacks=callbacks)
        run.resumed.restore_metrics(model)
        logs = model.get_metrics_result()
        callbacks.on_epoch_end(epoch, logs | {f"val_{name}": value for name, value in val_logs.items()})


def _result(run: Run, monitors: Sequence[TrainingMonitor], models: Sequence[Path]) -> FitResult:
    """List the files that the run has written, and count failed writes."""
    checkpoints, done = run.checkpoints, epochs_of(run.history)
    written = [path for monitor in monitors if monitor.is_written for path in (monitor.fig_path, monitor.json_path)]
    written += [path for path in list_checkpoints(run.folder)[-1:] if progress_in(path) == (done, 0)]
    written += [path for path in models if path.exists() and run.owns(path)]
    histories = [monitor.json_path for monitor in monitors if monitor.json_path]
    failures = checkpoints.failures + sum(monitor.failures for monitor in monitors)
    return FitResult(list(filter(None, written)), histories, failures)


def _finish(run: Run, model: keras.Model, monitors: Sequence[TrainingMonitor]) -> None:
    """Write the trained model, retry failed writes, and write files that are missing at a new output path."""
    checkpoints, done = run.checkpoints, epochs_of(run.history)
    checkpoints.finish()
    for monitor in monitors:
        path = monitor.json_path or monitor.fig_path
        if not monitor.is_written and (not path.exists() or run.owns_output(monitor.json_path)):
            monitor.write()
    if run.progress != (done, 0) and checkpoints.saved != (done, 0):  # without an EpochCheckpoint
        checkpoints.save(model, done)
    if run.model_path is not None and progress_in(run.model_path) != (done, 0):
        checkpoints.save_as(run.model_path, model, done)
