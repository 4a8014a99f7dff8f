"""A training run from its first step to its last: fit, report."""

import gc
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from sklearn.metrics import classification_report

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
from pipeline.io.batches import Batches, own_failures, predict
from pipeline.runs import Run

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The files that a run has written, and how often one could not be."""

    written: list[Path]
    failures: int


def fit(
    run: Run,
    model: keras.Model,
    data: DataSource,
    train: Batches,
    val: Batches,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Outcome:
    """Train the compiled `model` to the last epoch, or to `stop_after`, or until someone asks to stop.

    Goes on from the run's checkpoint, to the bit. Where weights are averaged, `model` has the averages in the end. What
    lies in the run's folders of another run, or of this one beyond the point where it goes on, is moved into
    `earlier-1`, `earlier-2`, ... beside. A disk that fails doesn't stop the run.

    Args:
        data: what `train` and `val` are of.
        callbacks: any of Keras and of this project. In whichever order they are listed, averages and the owner of the
            rate come before the others, for whom they add to the logs, and checkpoints after them.

    Raises:
        InputError: the checkpoint is of another data set, model or optimizer, or inside an epoch beyond the last; no
            checkpoint can hold what is compiled; another process trains in one of the folders; or the run diverges.
        SystemExit: Ctrl+C, SIGTERM or the like asked to stop, and the state is saved.
    """
    _check_fit(run, model, train, val, callbacks)
    run.begin(data, train.steps, precision_of(model))
    if run.resumed is not None:
        run.resumed.restore(model)
    rate = _rate_of(run, model, callbacks)
    monitors = _joined(run, callbacks)
    outputs = {
        path: monitor.json_path for monitor in monitors for path in (monitor.json_path, monitor.fig_path) if path
    }
    models = [] if run.model_path is None else [run.model_path]
    checkpoints, done, last = run.checkpoints, run.progress[0], run.last
    with run.held(outputs) as stop:
        if done < last:
            run.keep_earlier([*list_checkpoints(run.folder), *models], outputs)
            _log.info(
                f"{model.count_params():,} parameters, {train.num_images:,} training and {val.num_images:,} validation "
                f"images, {train.steps} steps an epoch, {keras.backend.backend()} on "
                f"{run.history['run']['sittings'][-1]['device']}"
            )
            _train(run, model, train, val, _arranged(run, model, train, callbacks, rate, stop))
        else:
            _log.info(f"epoch {last} is reached already: {done} epochs are done")
            run.keep_earlier(models, {})
            _start_averages(run, model, train.steps, callbacks)
        _finish(run, model, monitors)
    if stop:  # too late to be met by a batch
        sys.exit(stop.exit_code)
    if checkpoints.average is not None:
        checkpoints.average.put_in()
    done = epochs_of(run.history)
    if last <= done < run.args.epochs:
        _log.info(f"{done} of {run.args.epochs} epochs are done; go on with: {run.command}")
    return _outcome(run, monitors, models)


def report(run: Run, model: keras.Model, batches: Batches, outcome: Outcome) -> None:
    """Report precision and recall per class, the accuracy over every image, and where the run's files lie.

    Raises:
        OSError: something could not be written on the way.
    """
    heading = ["of the averaged weights"] if run.checkpoints.average is not None else []
    if run.args.holdout is not None:
        heading.append(f"on the {batches.num_images:,} training images that were held out")
    if heading:
        _log.info(f"{', '.join(heading)}:")
    predictions = predict(model, batches).argmax(axis=1)
    names = batches.class_names
    table = classification_report(
        batches.labels, predictions, labels=range(len(names)), target_names=names, digits=4, zero_division=0
    )
    for line in table.split("\n"):
        _log.info("%s", line)
    _log.info(f"accuracy: {100.0 * np.mean(predictions == batches.labels):.2f}%")
    for path in outcome.written:
        _log.info(f"written: {path}")
    if outcome.failures:
        raise OSError(f"{outcome.failures} times a file could not be written, as said above")


def _check_fit(
    run: Run, model: keras.Model, train: Batches, val: Batches, callbacks: Sequence[keras.callbacks.Callback]
) -> None:
    """Raise `InputError` if the model can't be trained on the batches, or a resume couldn't be exact."""
    check_compiled(model)
    shape = tuple(model.network[name] for name in ("height", "width", "depth"))
    for batches in (train, val):
        if batches.image_shape != shape:
            raise InputError(f"`data` {run.args.data} holds images of shape {batches.image_shape}; expected {shape}")
    for callback in callbacks:
        name = type(callback).__name__
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise InputError(f"{name} restores another state than the run's checkpoint, which is exact; leave it out")
        if getattr(callback, "restore_best_weights", False):
            raise InputError(f"{name} has restore_best_weights, of which checkpoints know nothing; see `keep`")
    if run.args.warmup_epochs and not getattr(model.optimizer, "warmup_steps", 0):
        raise InputError(
            f"`warmup_epochs` {run.args.warmup_epochs}: {type(model.optimizer).__name__} has no warm-up, which "
            "WarmupSGD does within the step; expected 0"
        )


def _joined(run: Run, callbacks: Sequence[keras.callbacks.Callback]) -> list[TrainingMonitor]:
    """Give callbacks that keep a history or checkpoints those of the run; return the monitors among them.

    Raises:
        InputError: checkpoints are to be kept in another folder than the run's.
    """
    monitors = [callback for callback in callbacks if isinstance(callback, TrainingMonitor)]
    for monitor in monitors:
        monitor.history = run.history
    for callback in callbacks:
        if isinstance(callback, EpochCheckpoint):
            folder = callback.checkpoints.folder
            if folder.resolve() != run.folder.resolve():
                raise InputError(f"EpochCheckpoint writes to {folder}, and the run to {run.folder}; expected the same")
            callback.checkpoints = run.checkpoints
    return monitors


def _rate_of(run: Run, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback]) -> LearningRate:
    """The owner of the learning rate among `callbacks`, or one that leaves it as it is, told what to start from."""
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
            raise InputError(
                f"`lr` {run.new_lr:g}: a {name} of the script sets the rate of each epoch; change it there"
            )
        epoch, batch = run.progress
        # An epoch that is only to be validated has been trained already.
        rate.change(run.new_lr, *((epoch + 1, 0) if batch == run.history["run"]["steps"] else (epoch, batch)))
    return rate


def _start_averages(
    run: Run, model: keras.Model, steps: int, callbacks: Sequence[keras.callbacks.Callback]
) -> list[WeightAverage]:
    """Those of `callbacks` that average, the first of them as far as the run has come, if it is on.

    Raises:
        InputError: the checkpoint holds averages and the run keeps none, or the other way round.
    """
    averages = [callback for callback in callbacks if isinstance(callback, WeightAverage) and callback.decay]
    epoch, batch = run.progress
    for callback in averages:
        callback.set_model(model)
        run.checkpoints.average = callback.start(epoch * steps + batch)
    if run.resumed is not None:
        if run.resumed.averaged != bool(averages):
            holds = "holds" if run.resumed.averaged else "lacks"
            raise InputError(f"checkpoint {run.resumed.path} {holds} averaged weights; expected the same of the run")
        for callback in averages:
            callback.average.restore(run.resumed.averages)
    return averages


def _arranged(
    run: Run,
    model: keras.Model,
    train: Batches,
    callbacks: Sequence[keras.callbacks.Callback],
    rate: LearningRate,
    stop: StopRequest,
) -> RunCallbacks:
    """The `callbacks` of the run and its own, in the order in which they have to come."""
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
    """Train from the run's start to its last epoch; `SystemExit` if it is asked to stop on the way."""
    (epoch, batch), last = run.progress, run.last
    exit_code = None
    try:
        callbacks.begin()
        run.checkpoints.check_callbacks()
        if batch and not model.stop_training:
            # Keras settles the number of batches once per fit: what is left of an epoch takes one of its own.
            _finish_epoch(run, model, train, val, callbacks)
            epoch += 1
            train.set_epoch(epoch)
        if epoch < last and not model.stop_training:
            _fit(model, train, val, (epoch, last), callbacks)
    except Stopped as stopped:
        exit_code = stopped.exit_code
        if exit_code == 0:
            _log.info(f"a callback has ended the training inside epoch {epochs_of(run.history) + 1}")
    except Exception as error:
        if error in (train.failure, val.failure):
            with suppress(OSError, InputError):  # of what the first is the reason of, or of less worth
                _batch_checkpoint_of(callbacks).save_after_failure()
                run.tell_how_to_go_on()
        raise
    callbacks.end()
    if exit_code is not None:
        run.tell_how_to_go_on()
        # TensorFlow's iterators complain if they outlive Python.
        gc.collect()
        sys.exit(exit_code)
    if (done := epochs_of(run.history)) < last:
        _log.info(f"a callback has ended the training after epoch {done}")


def _batch_checkpoint_of(callbacks: RunCallbacks) -> BatchCheckpoint:
    return next(callback for callback in callbacks.callbacks if isinstance(callback, BatchCheckpoint))


def _fit(
    model: keras.Model, train: Batches, val: Batches, epochs: tuple[int, int], callbacks: AsyncCallbackList
) -> None:
    """Train from the first of `epochs`, completed before, to the second."""
    initial_epoch, last = epochs
    with callbacks, own_failures(train, val):
        model.fit(
            train.for_keras(),
            validation_data=val.for_keras(),
            initial_epoch=initial_epoch,
            epochs=last,
            callbacks=callbacks,
            # The batches come shuffled; Keras would do it again, from a random state that no checkpoint holds.
            shuffle=False,
            verbose=0,
        )


def _finish_epoch(run: Run, model: keras.Model, train: Batches, val: Batches, callbacks: RunCallbacks) -> None:
    """Train on what is left of the epoch that `run` goes on in, and validate."""
    epoch, batch = run.progress
    if batch < train.steps:
        train.set_epoch(epoch, batch)
        _fit(model, train, val, (epoch, epoch + 1), callbacks)
        return
    # Only validation is left, which Keras has no fit for.
    callbacks.on_epoch_begin(epoch)
    with own_failures(val):
        val_logs = model.evaluate(val.for_keras(), verbose=0, return_dict=True, callbacks=callbacks)
        run.resumed.restore_metrics(model)
        logs = model.get_metrics_result()
        callbacks.on_epoch_end(epoch, logs | {f"val_{name}": value for name, value in val_logs.items()})


def _outcome(run: Run, monitors: Sequence[TrainingMonitor], models: Sequence[Path]) -> Outcome:
    """List the files that the run has written, and count those that it could not."""
    checkpoints, done = run.checkpoints, epochs_of(run.history)
    written = [path for monitor in monitors if monitor.is_written for path in (monitor.fig_path, monitor.json_path)]
    written += [path for path in list_checkpoints(run.folder)[-1:] if progress_in(path) == (done, 0)]
    written += [path for path in models if path.exists() and run.owns(path)]
    return Outcome(list(filter(None, written)), checkpoints.failures + sum(monitor.failures for monitor in monitors))


def _finish(run: Run, model: keras.Model, monitors: Sequence[TrainingMonitor]) -> None:
    """Write what a failing disk has kept from being written, or what is asked for in another place."""
    checkpoints, done = run.checkpoints, epochs_of(run.history)
    for monitor in monitors:
        path = monitor.json_path or monitor.fig_path
        if not monitor.is_written and (not path.exists() or run.owns_output(monitor.json_path)):
            monitor.write()
    if run.progress != (done, 0) and checkpoints.saved != (done, 0):  # where no callback keeps checkpoints
        checkpoints.save(model, done)
    if run.model_path is not None and progress_in(run.model_path) != (done, 0):
        checkpoints.save_as(run.model_path, model, done)
