"""What the training scripts share: start or resume a run, compile, fit, report."""

import gc
import hashlib
import platform
import shlex
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import keras
import numpy as np
from sklearn.metrics import classification_report

from pipeline import arguments, console
from pipeline.callbacks import BatchCheckpoint, EpochCheckpoint, EpochLine, TrainingMonitor
from pipeline.errors import InputError
from pipeline.io.atomic import check_folder, make_folder, move_aside, remove_unfinished
from pipeline.io.batches import Batches
from pipeline.io.checkpoint import Checkpoint, progress_in, read_checkpoint
from pipeline.io.checkpointfolder import CheckpointFolder, list_checkpoints
from pipeline.io.history import epochs_of, is_start_of, new_history, read_history
from pipeline.io.lock import locked
from pipeline.stopping import Stopped, StopRequest
from pipeline.utils.schedules import PolynomialDecay


@dataclass(frozen=True)
class Run:
    """A training run as the command line, and the checkpoint that it goes on from, settle it.

    `args` holds the value of every flag, `arguments` those of them that are stored and the same again on a resume.
    Checkpoints go to `folder`, the trained model to `model_path` if there is one. `command` goes on with the run.
    `decay` gives the share of the learning rate that is left after so many epochs; None where it is set by hand.
    """

    script: str
    args: Namespace
    arguments: dict
    checkpoint: Checkpoint | None
    folder: Path
    command: str
    model_path: Path | None = None
    decay: Callable[[int], float] | None = None

    @property
    def start(self) -> tuple[int, int]:
        """The completed epochs, and batches of the next one, that the run goes on after."""
        return (self.checkpoint.epoch, self.checkpoint.batch) if self.checkpoint else (0, 0)

    @property
    def batching(self) -> dict:
        """What the flags say of batches."""
        return {name: getattr(self.args, name) for name in ("batch_size", "seed", "workers")}

    def network(self, images: Mapping, classes: int) -> dict:
        """The arguments of `ResNet.build` for `images`, their size and stem, and `classes`."""
        return {**images, "classes": classes} | {
            name: getattr(self.args, name) for name in ("stages", "filters", "reg")
        }


@dataclass(frozen=True)
class Outcome:
    """The files that a run has written, and how often one could not be."""

    written: list[Path]
    failures: int


def start_by_hand(given: Namespace, script: str, defaults: Mapping, checkpoints: str) -> Run:
    """The run of a script in which the learning rate is set by hand.

    Args:
        given: what the parser returned, None for a flag that wasn't given.
        script: name of the script, without its ending.
        defaults: the script's own values of what a run is.
        checkpoints: folder of the checkpoints unless the flags say otherwise.

    Raises:
        InputError: a flag contradicts the checkpoint, another script wrote it, or a folder can't be written to.
    """
    checkpoint = find_checkpoint(given.model, Path(given.checkpoints or checkpoints))
    start_epoch = checkpoint.epoch if checkpoint else 0
    if given.start_epoch not in (None, start_epoch):
        hint = "" if checkpoint else "; name the checkpoint with --model"
        raise InputError(f"--start_epoch {given.start_epoch} differs from the epoch to go on from, {start_epoch}{hint}")
    folder = Path(given.checkpoints or (checkpoint.path.parent if checkpoint else checkpoints))
    args, values = _resolve(given, script, defaults, checkpoint, free={"epochs"})
    command = _command(script, "--checkpoints", folder, "--model", "latest")
    return _set_up(Run(script, args, values, checkpoint, folder, command))


def start_decay(given: Namespace, script: str, defaults: Mapping) -> Run:
    """The run of a script in which the learning rate decays to 0; arguments and errors as in `start_by_hand`."""
    folder = given.model.with_suffix("")
    checkpoint = find_checkpoint("latest" if given.resume else None, folder)
    args, values = _resolve(given, script, defaults, checkpoint)
    command = _command(script, "--model", given.model, "--resume")
    return _set_up(
        Run(script, args, values, checkpoint, folder, command, given.model, PolynomialDecay(1.0, args.epochs))
    )


def find_checkpoint(name: str | None, folder: Path) -> Checkpoint | None:
    """The checkpoint to go on from: the file `name`, or with "latest" the newest sound one in `folder`, or None.

    Raises:
        InputError: the file `name` is no sound checkpoint.
    """
    if name is None:
        return None
    if name != "latest":
        return read_checkpoint(Path(name))
    for path in reversed(list_checkpoints(folder)):
        try:
            return read_checkpoint(path)
        except InputError as error:
            print(f"passed over: {error}", file=sys.stderr)
    print(f"no checkpoint in {folder}: starting from the beginning")
    return None


def compile_model(run: Run, model: keras.Model) -> None:
    """Compile `model` with SGD and cross-entropy, and give it and its optimizer the checkpoint's state."""
    model.compile(
        # A fixed name, because the optimizer's variables are found by it in a checkpoint.
        keras.optimizers.SGD(run.args.lr, momentum=run.args.momentum, nesterov=run.args.nesterov, name="sgd"),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    if run.checkpoint is not None:
        run.checkpoint.restore(model)
        if run.args.lr != run.checkpoint.history["run"]["arguments"]["lr"]:
            model.optimizer.learning_rate = run.args.lr


def fit(run: Run, model: keras.Model, network: dict, train: Batches, val: Batches) -> Outcome:
    """Train to the last epoch, or to `stop_after`, or until someone asks to stop.

    What lies in the folders of the checkpoints and the output of another run, or of this one beyond the point where
    it goes on, is moved into `earlier-1`, `earlier-2`, ... beside. A disk that fails doesn't stop the run.

    Args:
        network: the arguments that `ResNet.build` made `model` from.

    Raises:
        InputError: the data set is not the one that the checkpoint was trained on, another process trains in the
            folder, or the run diverges.
        SystemExit: Ctrl+C or SIGTERM asked to stop, and the state is saved.
    """
    args, history = run.args, _open_history(run, train, val)
    fig_path, json_path = (Path(args.output) / f"{run.script}.{ending}" for ending in ("png", "json"))
    models = [] if run.model_path is None else [run.model_path]
    for path in (run.folder, fig_path.parent, *(path.parent for path in models)):
        make_folder(path)
    options = {name: getattr(args, name) for name in arguments.OPTION_DEFAULTS}
    checkpoints = CheckpointFolder(run.folder, network, history, options, args.keep)
    monitor = TrainingMonitor(fig_path, json_path, history=history)
    done, last = run.start[0], min(args.epochs, args.stop_after or args.epochs)
    with locked(run.folder), StopRequest() as stop:
        remove_unfinished(run.folder)
        for path in (fig_path, json_path, *models):
            remove_unfinished(path.parent, path.name)
        if done < last:
            _keep_earlier_runs(run, history, [*list_checkpoints(run.folder), json_path, fig_path, *models])
            print(
                f"{model.count_params():,} parameters, {train.num_images:,} training and {val.num_images:,} validation "
                f"images, {train.steps} steps an epoch, {keras.backend.backend()} on {history['run']['device']}"
            )
            exit_code = None
            try:
                _train(run, model, train, val, last, stop, checkpoints, monitor)
            except Stopped as stopped:
                exit_code = stopped.exit_code
            if exit_code is not None:
                print(f"go on with: {run.command}")
                # TensorFlow's iterators complain if they outlive Python.
                gc.collect()
                sys.exit(exit_code)
        else:
            print(f"epoch {last} is reached already: {done} epochs are done")
            _keep_earlier_runs(run, history, models)
        for path in models:
            if not path.exists() or read_checkpoint(path).epoch != epochs_of(history):
                checkpoints.save_as(path, model, epochs_of(history))
    if stop.signal:  # too late to be met by a batch
        sys.exit(stop.exit_code)
    written = (fig_path, json_path, *list_checkpoints(run.folder)[-1:], *models)
    return Outcome(
        [path for path in written if path.exists() and _belongs(path, history)], checkpoints.failures + monitor.failures
    )


def report(model: keras.Model, batches: Batches, outcome: Outcome) -> None:
    """Print precision and recall per class, the accuracy over every image, and where the run's files lie.

    Raises:
        OSError: something could not be written on the way.
    """
    predictions = model.predict(batches, verbose=0).argmax(axis=1)
    names = batches.class_names
    print(
        classification_report(
            batches.labels, predictions, labels=range(len(names)), target_names=names, digits=4, zero_division=0
        )
    )
    print(f"accuracy: {100.0 * np.mean(predictions == batches.labels):.2f}%")
    for path in outcome.written:
        print(f"written: {path}")
    if outcome.failures:
        raise OSError(f"{outcome.failures} times a file could not be written, as said above")


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
    history, on_terminal = checkpoints.history, sys.stdout.isatty()
    metrics = run.checkpoint.metrics if run.checkpoint else ()
    epoch, batch = run.start

    def begin_epoch(number: int, logs: dict | None = None) -> None:
        train.set_epoch(number, batch if number == epoch else 0)

    def ask_or_stop(*progress: int) -> bool:
        """Whether to stop at the (epoch, batch) of `progress`; sets another learning rate if that is the answer."""
        if stop.signal == signal.SIGTERM or not (on_terminal and sys.stdin.isatty()) or progress[0] == last:
            return True
        rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
        message = "after epoch {}, batch {}, learning rate {:g}:".format(*progress, rate)
        answer = console.ask(message, given_up=lambda: stop.signal == signal.SIGTERM)
        if isinstance(answer, float):
            lr = answer / _share(run, progress[0])
            model.optimizer.learning_rate = _change_rate(run, history, progress, lr)
        return answer == "stop"

    callbacks = [
        keras.callbacks.LambdaCallback(on_epoch_begin=begin_epoch),
        *([keras.callbacks.LearningRateScheduler(partial(_rate, run, history))] if run.decay else []),
        monitor,
        EpochCheckpoint(run.folder, run.args.every, checkpoints),
        *([] if on_terminal else [EpochLine()]),
        BatchCheckpoint(checkpoints, stop, train.steps, run.start, metrics, run.args.checkpoint_seconds, ask_or_stop),
    ]
    fit_to = partial(
        model.fit,
        train,
        validation_data=val,
        epochs=last,
        # The batches come shuffled; Keras would shuffle them again, from a random state that no checkpoint holds.
        shuffle=False,
        verbose=1 if on_terminal else 0,
    )
    if batch:
        # Keras settles the number of batches once per fit: what is left of an epoch takes one of its own.
        _finish_epoch(run, model, train, val, fit_to, callbacks, last)
        epoch, batch = epoch + 1, 0
        train.set_epoch(epoch)
    if epoch < last:
        fit_to(initial_epoch=epoch, callbacks=callbacks)


def _finish_epoch(
    run: Run,
    model: keras.Model,
    train: Batches,
    val: Batches,
    fit_to: Callable,
    callbacks: Sequence[keras.callbacks.Callback],
    last: int,
) -> None:
    """Train on what is left of the epoch that `run` goes on in, and validate."""
    epoch, batch = run.start
    if batch < train.steps:
        train.set_epoch(epoch, batch)
        one_epoch = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: run.checkpoint.restore_metrics(model),
            on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", True),
        )
        fit_to(initial_epoch=epoch, callbacks=[one_epoch, *callbacks])
        return
    # Only validation is left, which Keras has no fit for.
    everyone = keras.callbacks.CallbackList(callbacks, model=model, epochs=last, steps=train.steps)
    everyone.on_epoch_begin(epoch)
    val_logs = model.evaluate(val, verbose=0, return_dict=True, callbacks=everyone)
    run.checkpoint.restore_metrics(model)
    logs = model.get_metrics_result()
    everyone.on_epoch_end(epoch, logs | {f"val_{name}": value for name, value in val_logs.items()})


def _resolve(
    given: Namespace, script: str, defaults: Mapping, checkpoint: Checkpoint | None, free: Collection[str] = ()
) -> tuple[Namespace, dict]:
    """The value of every flag, and those that are stored. lr, data and `free` may differ from the checkpoint's."""
    saved = options = None
    if checkpoint is not None:
        record = checkpoint.history["run"]
        if record.get("script") != script:
            writer = f"{record['script']}.py; go on with that script" if "script" in record else "another program"
            raise InputError(f"checkpoint {checkpoint.path} was written by {writer}")
        if missing := {"arguments", "data", "learning_rate_changes"} - record.keys():
            raise InputError(f"checkpoint {checkpoint.path} lacks {', '.join(sorted(missing))} of its run")
        saved, options = record["arguments"], checkpoint.options
    args = arguments.resolve(given, defaults, saved, options, {*free, "lr", "data"})
    return args, {name: getattr(args, name) for name in arguments.RUN_DEFAULTS | dict(defaults)}


def _command(script: str, *words: object) -> str:
    return shlex.join(["python", f"{script}.py", *map(str, words)])


def _set_up(run: Run) -> Run:
    """Check where files will go, before time is spent; fix what Keras takes from global state; hand `run` back."""
    for path in (run.folder, Path(run.args.output), *([run.model_path.parent] if run.model_path else [])):
        check_folder(path)
    with console.quiet_start():  # Keras imports TensorFlow to seed it too, where it is installed beside JAX.
        keras.utils.set_random_seed(run.args.seed)  # the first weights; nothing else draws from it
    keras.config.set_dtype_policy(run.args.precision)
    return run


def _open_history(run: Run, train: Batches, val: Batches) -> dict:
    """The history to go on with: the checkpoint's, or a new one. A change of learning rate is recorded and printed."""
    data = hashlib.sha256((train.digest() + val.digest()).encode()).hexdigest()
    here = {
        "arguments": run.arguments,
        "classes": list(train.class_names),
        "steps": train.steps,
        "versions": _versions(),
        "device": _device(),
    }
    if run.checkpoint is None:
        return new_history({"script": run.script, "data": data, "learning_rate_changes": []} | here)
    history = run.checkpoint.history
    record = history["run"]
    before = record["arguments"]
    if record["data"] != data:
        raise InputError(
            f"--data {run.args.data} holds other images than the checkpoint's --data {before['data']}; name the data "
            "that the run was trained on, or start a fresh run without a checkpoint"
        )
    if run.checkpoint.backend != keras.backend.backend():
        print(f"the checkpoint is from the {run.checkpoint.backend} backend: the run goes on, but not bit for bit")
    record |= here | {"arguments": run.arguments | {"lr": before["lr"]}}
    if run.args.lr != before["lr"]:
        _change_rate(run, history, run.start, run.args.lr)
    return history


def _rate(run: Run, history: dict, epoch: int) -> float:
    """The learning rate of the epoch after `epoch` ones."""
    return history["run"]["arguments"]["lr"] * _share(run, epoch)


def _share(run: Run, epoch: int) -> float:
    return run.decay(epoch) if run.decay else 1.0


def _change_rate(run: Run, history: dict, progress: tuple[int, int], lr: float) -> float:
    """Make `lr` the rate, of a decay its start, from (epoch, batch) `progress` on; return the rate that follows."""
    before = _rate(run, history, progress[0])
    history["run"]["arguments"]["lr"] = lr
    rate = _rate(run, history, progress[0])
    print(f"learning rate {before:g} -> {rate:g}")
    history["run"]["learning_rate_changes"].append([*progress, rate])
    return rate


def _keep_earlier_runs(run: Run, history: dict, paths: Sequence[Path]) -> None:
    """Move aside those of `paths` that this run would overwrite, or that go beyond the point where it goes on."""
    strangers = [
        path
        for path in paths
        if path.exists() and not (_belongs(path, history) and (progress_in(path) or (0, 0)) <= run.start)
    ]
    for target in move_aside(strangers):
        names = ", ".join(path.name for path in strangers if path.parent == target.parent)
        print(f"moved to {target}, to keep what an earlier run wrote: {names}")


def _belongs(path: Path, history: dict) -> bool:
    """Whether the history in a checkpoint or JSON file, or beside a plot, is the beginning of `history`."""
    try:
        of_curves = path.suffix in (".json", ".png")
        earlier = read_history(path.with_suffix(".json")) if of_curves else read_checkpoint(path).history
    except InputError:
        return False
    return is_start_of(earlier, history)


def _versions() -> dict[str, str]:
    packages = ("keras", keras.backend.backend(), "numpy", "h5py")
    return {
        "python": platform.python_version(),
        **{package: sys.modules[package].__version__ for package in packages},
        "opencv": cv2.__version__,
    }


def _device() -> str:
    """The name of what the steps run on."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        for gpu in tf.config.list_physical_devices("GPU"):
            return tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    elif keras.backend.backend() == "jax":
        import jax

        if jax.default_backend() != "cpu":
            return jax.devices()[0].device_kind
    return _processor()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} cores of {models[0]}" if models else platform.machine()
