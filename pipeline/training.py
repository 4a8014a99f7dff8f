"""A training run from its first step to its last: compile, fit, report."""

import gc
import logging
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from sklearn.metrics import classification_report

from pipeline.callbacks import (
    AsyncCallbackList,
    BatchCheckpoint,
    EpochCheckpoint,
    EpochLine,
    TrainingMonitor,
    WeightAverage,
)
from pipeline.callbacks.stopping import Stopped, StopRequest
from pipeline.checkpoints.checkpoint import is_checkpoint_of, progress_in
from pipeline.checkpoints.folder import NAMES, CheckpointFolder, list_checkpoints
from pipeline.checkpoints.history import epochs_of, is_start_of, read_history
from pipeline.data.source import DataSource
from pipeline.errors import InputError
from pipeline.files.atomic import make_folder, move_aside, remove_unfinished
from pipeline.files.lock import Lock
from pipeline.io.batches import Batches, own_failures, predict
from pipeline.nn.average import MovingAverage
from pipeline.nn.optimizer import WarmupSGD, last_learning_rate
from pipeline.runs import Run, open_history

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The files that a run has written, and how often one could not be."""

    written: list[Path]
    failures: int


def compile_model(run: Run, model: keras.Model, steps: int) -> None:
    """Compile `model` with SGD and cross-entropy, and give it and its optimizer the checkpoint's state.

    `steps` is the number of batches in an epoch.
    """
    values = run.values
    model.compile(
        WarmupSGD(
            values.lr,
            momentum=values.momentum,
            nesterov=values.nesterov,
            warmup_steps=values.warmup_epochs * steps,
            name="sgd",  # fixed, because the optimizer's variables are found by it in a checkpoint
        ),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    if run.checkpoint is not None:
        run.checkpoint.restore(model)


def fit(run: Run, model: keras.Model, network: dict, source: DataSource, train: Batches, val: Batches) -> Outcome:
    """Train to the last epoch, or to `stop_after`, or until someone asks to stop.

    Where the run averages its weights, `model` has the averages in the end.

    What lies in the folders of the checkpoints and the output of another run, or of this one beyond the point where
    it goes on, is moved into `earlier-1`, `earlier-2`, ... beside. A disk that fails doesn't stop the run.

    Args:
        network: the arguments that `ResNet.build` made `model` from.
        source: what `train` and `val` are of.

    Raises:
        InputError: the data set is not the one that the checkpoint was trained on, another process trains in one of
            the folders or has done so since the checkpoint was chosen, the checkpoint is inside an epoch that is
            beyond the last, or the run diverges.
        SystemExit: Ctrl+C, SIGTERM or the like asked to stop, and the state is saved.
    """
    shape = (network["height"], network["width"], network["depth"])
    for batches in (train, val):
        if batches.image_shape != shape:
            raise InputError(f"`data` {run.values.data} holds images of shape {batches.image_shape}; expected {shape}")
    values, history = run.values, open_history(run, source, train.steps)
    fig_path, json_path = (Path(values.output) / f"{run.script}.{ending}" for ending in ("png", "json"))
    models = [] if run.model_path is None else [run.model_path]
    for path in (run.folder, *(path.parent for path in models)):
        make_folder(path)
    average = _average(run, model, train.steps)
    monitor = TrainingMonitor(fig_path, json_path, history=history)
    done, last = run.start[0], min(values.epochs, values.stop_after or values.epochs)
    if run.start > (last, 0) and run.start[1]:
        raise InputError(
            f"checkpoint {run.checkpoint.path} is inside epoch {done + 1}, and the run is to end after epoch {last}; "
            "name an earlier checkpoint, or a later epoch"
        )
    # Another run may keep its checkpoints elsewhere and yet its curves in the same place.
    output_lock = Lock(fig_path.parent, f".{run.script}.lock")
    with Lock(run.folder) as lock, output_lock, StopRequest() as stop:
        if run.found not in (None, list_checkpoints(run.folder)):
            raise InputError(f"another process has gone on with the run in {run.folder} just now; start this one again")
        checkpoints = CheckpointFolder(
            run.folder, network, history, dict(run.options), values.keep, average, lock, run.changeable
        )
        remove_unfinished(run.folder, NAMES)
        for path in (fig_path, json_path, *models):
            remove_unfinished(path.parent, re.compile(re.escape(path.name)))
        if done < last:
            _keep_earlier_runs(run, history, [*list_checkpoints(run.folder), json_path, fig_path, *models])
            _log.info(
                f"{model.count_params():,} parameters, {train.num_images:,} training and {val.num_images:,} validation "
                f"images, {train.steps} steps an epoch, {keras.backend.backend()} on {history['run']['device']}"
            )
            exit_code = None
            try:
                _train(run, model, train, val, last, stop, checkpoints, monitor)
            except Stopped as stopped:
                exit_code = stopped.exit_code
            if exit_code is not None:
                _tell_how_to_go_on(run)
                # TensorFlow's iterators complain if they outlive Python.
                gc.collect()
                sys.exit(exit_code)
        else:
            _log.info(f"epoch {last} is reached already: {done} epochs are done")
            _keep_earlier_runs(run, history, models)
        # What a failing disk has kept from being written, or was asked for in another place.
        if not monitor.is_written and (not json_path.exists() or _belongs(json_path, run, history)):
            monitor.write()
        for path in models:
            if not path.exists() or progress_in(path) != (epochs_of(history), 0):
                checkpoints.save_as(path, model, epochs_of(history))
    if stop:  # too late to be met by a batch
        sys.exit(stop.exit_code)
    if average is not None:
        average.put_in()
    if last < values.epochs:
        _log.info(f"{last} of {values.epochs} epochs are done; go on with: {run.command}")
    written = [fig_path, json_path] if monitor.is_written else []
    written += [path for path in list_checkpoints(run.folder)[-1:] if progress_in(path) == (epochs_of(history), 0)]
    written += [path for path in models if path.exists() and _belongs(path, run, history)]
    return Outcome(written, checkpoints.failures + monitor.failures)


def _tell_how_to_go_on(run: Run) -> None:
    newest = list_checkpoints(run.folder)[-1:]
    _log.info(f"the newest checkpoint is {newest[0] if newest else 'none'}")
    if newest:
        _log.info(f"go on with: {run.command}")


def report(run: Run, model: keras.Model, batches: Batches, outcome: Outcome) -> None:
    """Report precision and recall per class, the accuracy over every image, and where the run's files lie.

    Raises:
        OSError: something could not be written on the way.
    """
    heading = ["of the averaged weights"] if run.values.ema else []
    if run.values.holdout is not None:
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


def _average(run: Run, model: keras.Model, steps: int) -> MovingAverage | None:
    """The average of the weights as far as the run has come, if it keeps one."""
    if not run.values.ema:
        return None
    epoch, batch = run.start
    average = MovingAverage(model, run.values.ema, epoch * steps + batch)
    if run.checkpoint is not None:
        average.restore(run.checkpoint.averages)
    return average


def _train(
    run: Run,
    model: keras.Model,
    train: Batches,
    val: Batches,
    last: int,
    stop: StopRequest,
    checkpoints: CheckpointFolder,
    monitor: TrainingMonitor,
) -> None:
    """Everything between the run's start and epoch `last`."""
    history, average = checkpoints.history, checkpoints.average
    metrics = run.checkpoint.metrics if run.checkpoint else ()
    epoch, batch = run.start

    def begin_epoch(number: int, logs: dict | None = None) -> None:
        train.set_epoch(number, batch if number == epoch else 0)
        if not (run.only_validates and number == run.start[0]):  # which has been trained
            model.optimizer.learning_rate = run.rate(history, number)

    def end_epoch(number: int, logs: dict) -> None:
        logs["learning_rate"] = last_learning_rate(model.optimizer)  # for the progress bar

    def ask_or_stop(epoch: int, batch: int, failed: bool) -> str:
        """What to do after so many epochs and batches; sees to another learning rate if that is the answer."""
        trained = batch == train.steps  # and is being validated: another rate is that of the epoch after
        if stop.terminated or run.ask is None or epoch + trained == last:
            return "give up" if failed else "stop"
        now, aim = last_learning_rate(model.optimizer), run.rate(history, epoch)
        rising = f", rising to {aim:g}" if epoch * train.steps + batch < model.optimizer.warmup_steps else ""
        message = f"after epoch {epoch}, batch {batch}, learning rate {now:g}{rising}:"
        with stop.asking():
            answer = run.ask(message, lambda: stop.is_answered or stop.terminated)
        if failed and stop.is_answered:  # saving has failed, and is not wanted any more
            return "give up"
        if answer in ("stop", "go on"):
            return answer
        start = (epoch + 1, 0) if trained else (epoch, batch)
        rate = run.change_rate(history, start, answer / run.lr_scale(start[0]))
        if not trained:
            model.optimizer.learning_rate = rate
        return "save"  # before anything can lose the choice

    batch_checkpoint = BatchCheckpoint(
        checkpoints, stop, train.steps, run.start, metrics, run.values.checkpoint_seconds, ask_or_stop
    )
    callbacks = [
        keras.callbacks.LambdaCallback(
            on_epoch_begin=begin_epoch,
            on_train_batch_begin=lambda batch, logs: train.wait_for(batch),
            on_epoch_end=end_epoch,
        ),
        *([WeightAverage(average, val, AsyncCallbackList([batch_checkpoint], model=model))] if average else []),
        monitor,
        EpochCheckpoint(run.folder, run.values.every, checkpoints),
        *([] if run.draws_progress else [EpochLine()]),
        batch_checkpoint,
    ]

    def called(*first: keras.callbacks.Callback, in_fit: bool = True) -> AsyncCallbackList:
        return AsyncCallbackList(
            [*first, *callbacks],
            add_history=in_fit,
            add_progbar=in_fit and run.draws_progress,
            model=model,
            verbose=1,
            epochs=last,
            steps=len(train),
        )

    try:
        if batch:
            # Keras settles the number of batches once per fit: what is left of an epoch takes one of its own.
            _finish_epoch(run, model, train, val, called)
            epoch, batch = epoch + 1, 0
            train.set_epoch(epoch)
        if epoch < last:
            _fit(model, train, val, epoch, last, called())
    except Exception as error:
        if error in (train.failure, val.failure):
            with suppress(OSError, InputError):  # of what the first is the reason of, or of less worth
                batch_checkpoint.save_after_failure()
                _tell_how_to_go_on(run)
        raise


def _fit(
    model: keras.Model, train: Batches, val: Batches, initial_epoch: int, last: int, callbacks: AsyncCallbackList
) -> None:
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


def _finish_epoch(
    run: Run, model: keras.Model, train: Batches, val: Batches, called: Callable[..., AsyncCallbackList]
) -> None:
    """Train on what is left of the epoch that `run` goes on in, and validate; `called` lists the callbacks."""
    epoch, batch = run.start
    if batch < train.steps:
        train.set_epoch(epoch, batch)
        restore = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: run.checkpoint.restore_metrics(model))
        _fit(model, train, val, epoch, epoch + 1, called(restore))
        return
    # Only validation is left, which Keras has no fit for.
    everyone = called(in_fit=False)
    everyone.on_epoch_begin(epoch)
    with own_failures(val):
        val_logs = model.evaluate(val.for_keras(), verbose=0, return_dict=True, callbacks=everyone)
        run.checkpoint.restore_metrics(model)
        logs = model.get_metrics_result()
        everyone.on_epoch_end(epoch, logs | {f"val_{name}": value for name, value in val_logs.items()})


def _keep_earlier_runs(run: Run, history: dict, paths: Sequence[Path]) -> None:
    """Move aside those of `paths` that this run would overwrite, or that go beyond the point where it goes on."""
    foreign = [
        path
        for path in paths
        if path.exists() and ((progress_in(path) or (0, 0)) > run.start or not _belongs(path, run, history))
    ]
    for target in move_aside(foreign):
        names = ", ".join(path.name for path in foreign if path.parent == target.parent)
        _log.info(f"moved to {target}, to keep what was there: {names}")


def _belongs(path: Path, run: Run, history: dict) -> bool:
    """Whether the history in a checkpoint or JSON file, or beside a plot, is the beginning of that of `run`."""
    if run.checkpoint is not None and path.resolve() == run.checkpoint.path.resolve():
        return True
    if path.suffix not in (".json", ".png"):
        return is_checkpoint_of(path, history, run.changeable, whole=path == run.model_path)
    try:
        return is_start_of(read_history(path.with_suffix(".json")), history, changeable=run.changeable)
    except InputError:
        return False
