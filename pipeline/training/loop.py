"""Train a run from its first step to its last."""

import gc
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import keras

from pipeline.callbacks import AsyncCallbackList, BatchCheckpoint, RunCallbacks
from pipeline.callbacks.logs import RunPage
from pipeline.callbacks.stopping import Stopped
from pipeline.checkpoints.checkpoint import progress_in
from pipeline.checkpoints.compiled import check_compiled, precision_of
from pipeline.checkpoints.history import epochs_of
from pipeline.checkpoints.listing import list_checkpoints
from pipeline.data.source import DataSource
from pipeline.errors import InputError
from pipeline.io.batches import Batches, data_errors
from pipeline.training.dryrun import dry_run
from pipeline.training.reports import FitResult, tables_beside
from pipeline.training.runcallbacks import Outputs, bind, callback_list, rate_of, start_averages
from pipeline.training.runs import Run

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
        SystemExit: the run was only tried; a signal such as Ctrl+C or SIGTERM asked to stop; or a callback stopped the
            training inside an epoch. The state is saved; if that failed, the exit code is 1.
    """
    _check_fit(run, model, train, val, callbacks)
    run.begin(data, train, precision_of(model))
    if run.resumed is not None:
        run.resumed.restore(model)
    rate = rate_of(run, model, callbacks)
    outputs = bind(run, callbacks)
    curves, tables = outputs.curves, tables_beside(outputs.curves)
    if run.is_dry:
        dry_run(run, model, train, val, start_averages(run, model, train.steps, callbacks), callbacks)
        sys.exit(0)
    models = [] if run.model_path is None else [run.model_path]
    checkpoints, done, last = run.checkpoints, run.progress[0], run.last
    with run.locked(curves, [log.path for log in outputs.csv_logs]) as requests:
        if done < last:
            run.move_earlier_aside([*list_checkpoints(run.folder), *models], curves | tables, outputs.foreign_logs())
            _log.info(
                f"{model.count_params():,} parameters, {train.num_images:,} training and {val.num_images:,} validation "
                f"images, {train.steps} steps per epoch, {keras.backend.backend()} on "
                f"{run.history['run']['sittings'][-1]['device']}"
            )
            _train(run, model, train, val, callback_list(run, model, train, callbacks, rate, requests))
        else:
            _log.info(f"epoch {last} is already done; there is nothing to train")
            run.move_earlier_aside(models, {table: path for table, path in tables.items() if not path.exists()})
            start_averages(run, model, train.steps, callbacks)
        _finish(run, model, outputs)
    if requests.stop:  # after the last batch
        sys.exit(requests.stop.exit_code)
    if checkpoints.average is not None:
        checkpoints.average.swap_in()
    done = epochs_of(run.history)
    if last <= done < run.args.epochs:
        _log.info(f"{done} of {run.args.epochs} epochs are done; resume with: {run.command}")
    return _result(run, outputs, models)


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
        for callback in callbacks.callbacks:
            if isinstance(callback, RunPage):
                callback.end(str(error).partition("\n")[0])
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


def _result(run: Run, outputs: Outputs, models: Sequence[Path]) -> FitResult:
    """List the files that the run has written, and count failed writes."""
    checkpoints, done = run.checkpoints, epochs_of(run.history)
    written = outputs.written()
    written += [path for path in list_checkpoints(run.folder)[-1:] if progress_in(path) == (done, 0)]
    written += [path for path in models if path.exists() and run.owns(path)]
    return FitResult(written, outputs.histories, checkpoints.failures + outputs.failures)


def _finish(run: Run, model: keras.Model, outputs: Outputs) -> None:
    """Write the trained model, retry failed writes, and write files that are missing at a new output path."""
    checkpoints, done = run.checkpoints, epochs_of(run.history)
    checkpoints.finish()
    for monitor in outputs.monitors:
        path = monitor.json_path or monitor.fig_path
        if not monitor.is_written and (not path.exists() or run.owns_output(monitor.json_path)):
            monitor.write()
    for log in outputs.csv_logs:
        if not log.is_written and not log.is_foreign():
            log.write()
    if run.progress != (done, 0) and checkpoints.saved != (done, 0):  # without an EpochCheckpoint
        checkpoints.save(model, done)
    if run.model_path is not None and progress_in(run.model_path) != (done, 0):
        checkpoints.save_as(run.model_path, model, done)
    for page in outputs.pages:  # now that all other files are there
        if not page.path.exists() or run.owns_output(outputs.curves[page.path]):
            page.end()
