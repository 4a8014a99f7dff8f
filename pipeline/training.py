"""What the training scripts share: find the checkpoint, resolve the arguments, compile, fit, report."""

import platform
import sys
from argparse import Namespace
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import cv2
import keras
import numpy as np
from sklearn.metrics import classification_report

from pipeline import arguments, console
from pipeline.callbacks import EpochCheckpoint, EpochLine, TrainingMonitor
from pipeline.errors import InputError
from pipeline.io.atomic import make_folder, move_aside
from pipeline.io.batches import ArrayBatches
from pipeline.io.checkpoint import Checkpoint, list_checkpoints, read_checkpoint, save_checkpoint
from pipeline.io.history import epochs_of, is_start_of, new_history, read_history


def find_checkpoint(name: str | None, folder: Path) -> Checkpoint | None:
    """The checkpoint to go on from: the file `name`, or with "latest" the newest sound one in `folder`, or None.

    A name that ends in `.hdf` finds `.hdf5`.

    Raises:
        InputError: the file `name` is no sound checkpoint.
    """
    if name is None:
        return None
    if name != "latest":
        path = Path(name)
        return read_checkpoint(path.with_suffix(".hdf5") if path.suffix == ".hdf" and not path.exists() else path)
    for path in reversed(list_checkpoints(folder)):
        try:
            return read_checkpoint(path)
        except InputError as error:
            print(f"passed over: {error}", file=sys.stderr)
    print(f"no checkpoint in {folder}: starting from the beginning")
    return None


def resolve(
    given: Namespace, script: str, defaults: Mapping, checkpoint: Checkpoint | None, free: Collection[str] = ()
) -> Namespace:
    """The values that the run goes by: flags, then the checkpoint's values, then `defaults`.

    Args:
        given: what the parser returned.
        script: name of the script, without its ending.
        defaults: the script's own values of what a run is.
        checkpoint: where the run goes on from, or None.
        free: arguments that may differ from the checkpoint's, beside the learning rate and the place of the data.

    Raises:
        InputError: a flag contradicts the checkpoint, or another script wrote it.
    """
    if checkpoint is None:
        return arguments.resolve(given, defaults)
    run = checkpoint.history["run"]
    if run.get("script") != script:
        writer = f"{run['script']}.py; go on with that script" if "script" in run else "another program"
        raise InputError(f"checkpoint {checkpoint.path} was written by {writer}")
    if missing := {"arguments", "data", "learning_rate_changes"} - run.keys():
        raise InputError(f"checkpoint {checkpoint.path} lacks {', '.join(sorted(missing))} of its run")
    saved = run["arguments"] | {"lr": _current_rate(run)}
    return arguments.resolve(given, defaults, saved, checkpoint.options, {*free, "lr", "data"})


def open_history(
    script: str, args: Namespace, defaults: Mapping, data_digest: str, checkpoint: Checkpoint | None
) -> dict:
    """The history to go on with: the checkpoint's, or a new one. A learning rate that changes is recorded and printed.

    Raises:
        InputError: the data set is not the one that the checkpoint was trained on.
    """
    values = {name: getattr(args, name) for name in arguments.RUN_DEFAULTS | dict(defaults)}
    if checkpoint is None:
        run = {"script": script, "arguments": values, "data": data_digest, "learning_rate_changes": []}
        return new_history(run | {"versions": _versions(), "device": _device()})
    history = checkpoint.history
    run = history["run"]
    if run["data"] != data_digest:
        raise InputError(
            f"--data {args.data} holds other images than the checkpoint's --data {run['arguments']['data']}; name the "
            "data that the run was trained on, or start a fresh run without a checkpoint"
        )
    if checkpoint.backend != keras.backend.backend():
        print(f"the checkpoint is from the {checkpoint.backend} backend: the run goes on, but not bit for bit")
    rate = _current_rate(run)
    if args.lr != rate:
        print(f"learning rate {rate:g} -> {args.lr:g}")
        run["learning_rate_changes"].append([checkpoint.epoch, checkpoint.batch, args.lr])
    run["arguments"] = values | {"lr": run["arguments"]["lr"]}
    run |= {"versions": _versions(), "device": _device()}
    return history


def set_up(args: Namespace) -> None:
    """Fix what Keras takes from global state: the seed of the first weights and the precision of a step."""
    with console.quiet_start():  # Keras imports TensorFlow to seed it too, where it is installed beside JAX.
        keras.utils.set_random_seed(args.seed)
    keras.config.set_dtype_policy(args.precision)


def network_arguments(args: Namespace, classes: int) -> dict:
    """What `ResNet.build` takes from the command line and the data."""
    return {"classes": classes, "stages": args.stages, "filters": args.filters, "reg": args.reg}


def compile_model(model: keras.Model, args: Namespace, checkpoint: Checkpoint | None = None) -> None:
    """Compile `model` with SGD and cross-entropy, and give it and its optimizer the checkpoint's state."""
    model.compile(
        # A fixed name, because the optimizer's variables are found by it in a checkpoint.
        keras.optimizers.SGD(args.lr, momentum=args.momentum, name="sgd"),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    if checkpoint is not None:
        checkpoint.restore(model)
        # Only a change made just now: the restored rate is exact, and a decay's differs from where it started.
        changes = checkpoint.history["run"]["learning_rate_changes"]
        if changes and changes[-1][:2] == [checkpoint.epoch, checkpoint.batch]:
            model.optimizer.learning_rate = args.lr


def fit(
    model: keras.Model,
    train: ArrayBatches,
    test: ArrayBatches,
    args: Namespace,
    *,
    folder: Path,
    network: dict,
    history: dict,
    model_path: Path | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> list[Path]:
    """Train from the end of `history` to the last epoch, or to `stop_after`; return the paths of what is written.

    Checkpoints go to `folder`, the trained model to `model_path` if there is one. What lies there, or in the output
    folder, of another run or of this one beyond the point where it goes on, is moved into `earlier-1`, `earlier-2`,
    ... beside.
    """
    output = Path(args.output)
    fig_path, json_path = (output / f"{history['run']['script']}.{ending}" for ending in ("png", "json"))
    models = [] if model_path is None else [model_path]
    for path in (folder, output, *(path.parent for path in models)):
        make_folder(path)
    options = {name: getattr(args, name) for name in arguments.OPTION_DEFAULTS}
    state = {"network": network, "history": history, "options": options}
    done, last = epochs_of(history), min(args.epochs, args.stop_after or args.epochs)
    if done < last:
        _keep_earlier_runs(history, [*list_checkpoints(folder), json_path, fig_path, *models])
        print(
            f"{model.count_params():,} parameters, {len(train.images):,} training and {len(test.images):,} test "
            f"images, {train.num_batches} steps an epoch, {keras.backend.backend()} on {history['run']['device']}"
        )
        on_terminal = sys.stdout.isatty()
        model.fit(
            train,
            validation_data=test,
            initial_epoch=done,
            epochs=last,
            # The batches come shuffled; Keras would shuffle them again, from a random state that no checkpoint holds.
            shuffle=False,
            verbose=1 if on_terminal else 0,
            callbacks=[
                keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: train.set_epoch(epoch)),
                *callbacks,
                TrainingMonitor(fig_path, json_path, history=history),
                EpochCheckpoint(folder, args.every, **state),
                *([] if on_terminal else [EpochLine()]),
            ],
        )
    else:
        print(f"epoch {last} is reached already: {done} epochs are done")
        _keep_earlier_runs(history, models)
    for path in models:
        if not path.exists() or read_checkpoint(path).epoch != epochs_of(history):
            save_checkpoint(path, model, epoch=epochs_of(history), batch=0, **state)
    written = (fig_path, json_path, *list_checkpoints(folder)[-1:], *models)
    return [path for path in written if path.exists() and _belongs(path, history)]


def report(model: keras.Model, test: ArrayBatches, classes: Sequence[str], written: Sequence[Path]) -> None:
    """Print precision and recall per class, the accuracy over every test image, and where the run's files lie."""
    predictions = model.predict(test, verbose=0).argmax(axis=1)
    print(
        classification_report(
            test.labels, predictions, labels=range(len(classes)), target_names=classes, digits=4, zero_division=0
        )
    )
    print(f"accuracy: {100.0 * np.mean(predictions == test.labels):.2f}%")
    for path in written:
        print(f"written: {path}")


def _current_rate(run: Mapping) -> float:
    """The learning rate last set: by hand, or else when the run began."""
    changes = run["learning_rate_changes"]
    return changes[-1][2] if changes else run["arguments"]["lr"]


def _keep_earlier_runs(history: dict, paths: Sequence[Path]) -> None:
    """Move aside those of `paths` that this run would overwrite and that aren't its own beginning."""
    strangers = [path for path in paths if path.exists() and not _belongs(path, history)]
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
