"""A training run before its first step: what the flags, and the checkpoint that it goes on from, make of it."""

import shlex
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from pipeline import arguments, console
from pipeline.command import printable
from pipeline.environment import device, versions
from pipeline.errors import InputError
from pipeline.flags import DIGITS, changeable
from pipeline.io.atomic import check_folder
from pipeline.io.batches import Batches, data_digest
from pipeline.io.checkpoint import Checkpoint
from pipeline.io.checkpointfolder import find_checkpoint, list_checkpoints
from pipeline.io.history import curves, epochs_of, new_history
from pipeline.recipe import NAMES, Recipe, all_values
from pipeline.utils.schedules import decay_after_warmup


@dataclass(frozen=True)
class Run:
    """A training run as the command line, and the checkpoint that it goes on from, settle it.

    `args` holds the value of every flag, `arguments` those of them that are stored and the same again on a resume.
    Checkpoints go to `folder`, the trained model to `model_path` if there is one. `command` goes on with the run.
    `found` are the checkpoints that `checkpoint` was chosen from as the newest, if it was.
    """

    script: str
    args: Namespace
    arguments: dict
    checkpoint: Checkpoint | None
    folder: Path
    command: str
    model_path: Path | None = None
    found: Sequence[Path] | None = None

    @property
    def start(self) -> tuple[int, int]:
        """The completed epochs, and batches of the next one, that the run goes on after."""
        return (self.checkpoint.epoch, self.checkpoint.batch) if self.checkpoint else (0, 0)

    @property
    def only_validates(self) -> bool:
        """Whether nothing but validation is left of the epoch that the run goes on in."""
        return self.checkpoint is not None and 0 < self.checkpoint.batch == self.checkpoint.history["run"]["steps"]

    @property
    def recipe(self) -> Recipe:
        """How the network is trained."""
        return Recipe(**{name: getattr(self.args, name) for name in NAMES})

    @property
    def batching(self) -> dict:
        """What the flags say of the choice of images, and of batches."""
        return {name: getattr(self.args, name) for name in ("limit", "holdout", "batch_size", "seed", "workers")}

    def network(self, images: Mapping, classes: int) -> dict:
        """The arguments of `ResNet.build` for `images`, their size and stem, and `classes`."""
        args = self.args
        return {**images, "classes": classes, "stages": args.stages, "filters": args.filters, "reg": self.recipe.reg}

    @property
    def decay(self) -> Callable[[int], float] | None:
        """The share of the learning rate that is left after so many epochs; None where it is set by hand alone."""
        if self.recipe.schedule == "constant":
            return None
        return decay_after_warmup(self.recipe.schedule, self.args.epochs, self.recipe.warmup_epochs)

    def rate(self, history: dict, epoch: int) -> float:
        """The learning rate of the epoch after `epoch` ones."""
        return history["run"]["arguments"]["lr"] * self.share(epoch)

    def share(self, epoch: int) -> float:
        """What is left of the starting rate after `epoch` epochs."""
        return self.decay(epoch) if self.decay else 1.0

    def change_rate(self, history: dict, progress: tuple[int, int], lr: float) -> float:
        """Make `lr` the rate, of a decay its start, from (epoch, batch) `progress` on; return the rate that follows.

        Raises:
            InputError: nothing is left there of any rate.
        """
        if not self.share(progress[0]):
            raise InputError(f"--lr {lr}: the rate has decayed to 0 after epoch {progress[0]}; leave it out")
        before = self.rate(history, progress[0])
        history["run"]["arguments"]["lr"] = lr
        rate = self.rate(history, progress[0])
        later = f" from epoch {progress[0] + 1} on" if progress[0] > epochs_of(history) else ""
        print(f"learning rate {before:g} -> {rate:g}{later}")
        history["run"]["learning_rate_changes"].append([*progress, rate])
        return rate


def start_by_hand(
    given: Namespace, script: str, defaults: Mapping, recipes: Mapping[str, Mapping], checkpoints: str
) -> Run:
    """The run of a script in which the learning rate is set by hand.

    Args:
        given: what the parser returned, None for a flag that wasn't given.
        script: name of the script, without its ending.
        defaults: the script's own values of what a run is.
        recipes: the values of each recipe.
        checkpoints: folder of the checkpoints unless the flags say otherwise.

    Raises:
        InputError: a flag contradicts the checkpoint, another script wrote it, or a folder can't be written to.
    """
    found = list_checkpoints(Path(given.checkpoints or checkpoints)) if given.model == "latest" else None
    checkpoint = find_checkpoint(given.model, Path(given.checkpoints or checkpoints))
    start_epoch = checkpoint.epoch if checkpoint else 0
    if given.start_epoch not in (None, start_epoch):
        hint = "" if checkpoint else "; name the checkpoint with --model"
        raise InputError(f"--start_epoch {given.start_epoch} differs from the epoch to go on from, {start_epoch}{hint}")
    folder = Path(given.checkpoints or (checkpoint.path.parent if checkpoint else checkpoints))
    args, values = _resolve(given, script, defaults, recipes, checkpoint)
    command = _command("--checkpoints", folder, "--model", "latest")
    return _set_up(Run(script, args, values, checkpoint, folder, command, found=found), given)


def start_decay(given: Namespace, script: str, defaults: Mapping, recipes: Mapping[str, Mapping]) -> Run:
    """The run of a script in which the learning rate decays; arguments and errors as in `start_by_hand`."""
    folder = given.model.with_suffix("")
    found = list_checkpoints(folder) if given.resume else None
    checkpoint = find_checkpoint("latest" if given.resume else None, folder)
    args, values = _resolve(given, script, defaults, recipes, checkpoint)
    command = _command("--model", given.model, "--resume")
    return _set_up(Run(script, args, values, checkpoint, folder, command, given.model, found), given)


def open_history(run: Run, train: Batches, val: Batches) -> dict:
    """The history to go on with: the checkpoint's, or a new one. A change of learning rate is recorded and printed.

    Raises:
        InputError: the data set is not the one that the checkpoint was trained on.
    """
    data = data_digest(train, val)
    here = {
        "arguments": run.arguments,
        "classes": list(train.class_names),
        "steps": train.steps,
        "versions": versions(),
        "device": device(),
    }
    if run.checkpoint is None:
        return new_history({"script": run.script, "data": data, "learning_rate_changes": []} | here)
    history = run.checkpoint.history
    record = history["run"]
    before = record["arguments"]
    if record["data"] != data:
        trained_on = f", the checkpoint's --data {before['data']}" if before["data"] else ""
        there = f"--data {run.args.data}" if run.args.data else "the data set"
        raise InputError(
            f"{there} holds other images than the run was trained on{trained_on}; name those with --data, or start a "
            "fresh run without a checkpoint"
        )
    if run.checkpoint.batch > train.steps:
        raise InputError(
            f"checkpoint {run.checkpoint.path} is after batch {run.checkpoint.batch} of an epoch of {train.steps}"
        )
    if run.checkpoint.backend != keras.backend.backend():
        print(f"the checkpoint is from the {run.checkpoint.backend} backend: the run goes on, but not bit for bit")
    record |= here | {"arguments": run.arguments | {"lr": before["lr"]}}
    if run.args.lr != before["lr"]:
        # An epoch that is only to be validated has been trained already.
        run.change_rate(history, (run.start[0] + 1, 0) if run.only_validates else run.start, run.args.lr)
    return history


def _resolve(
    given: Namespace, script: str, defaults: Mapping, recipes: Mapping[str, Mapping], checkpoint: Checkpoint | None
) -> tuple[Namespace, dict]:
    """The value of every flag, and those that are stored."""
    saved, options, recipe = None, None, given.recipe or arguments.RUN_DEFAULTS["recipe"]
    if checkpoint is not None:
        record = checkpoint.history["run"]
        if record.get("script") != script:
            writer = f"{record['script']}.py; go on with that script" if "script" in record else "another program"
            raise InputError(f"checkpoint {checkpoint.path} was written by {writer}")
        if missing := {"arguments", "data", "learning_rate_changes", "steps"} - record.keys():
            raise InputError(f"checkpoint {checkpoint.path} lacks {', '.join(sorted(missing))} of its run")
        saved, options = _before_recipes(defaults, recipes) | record["arguments"], checkpoint.options
        recipe = saved["recipe"]
        if recipe not in recipes:
            raise InputError(f"checkpoint {checkpoint.path} has --recipe {recipe!a:.100}; there is no such recipe")
        if missing := (arguments.RUN_DEFAULTS | dict(defaults)).keys() - saved.keys():
            raise InputError(f"checkpoint {checkpoint.path} lacks the values of {', '.join(sorted(missing))}")
        if any(len(checkpoint.history[curve]) != checkpoint.epoch for curve in curves(record)):
            raise InputError(f"checkpoint {checkpoint.path} lacks epochs of a curve")
        for name in ("stages", "filters", "reg"):
            if saved[name] != checkpoint.network.get(name):
                raise InputError(f"checkpoint {checkpoint.path} is of another network than its --{name} says")
    defaults = all_values(recipes[recipe]) | dict(defaults)
    args = arguments.resolve(given, defaults, saved, options, changeable(saved or {}))
    if args.warmup_epochs > args.epochs:
        raise InputError(f"--warmup_epochs {args.warmup_epochs}: expected at most --epochs {args.epochs}")
    if args.nesterov and not args.momentum:
        raise InputError("--momentum 0: --nesterov looks ahead along the momentum; expected more, or --no_nesterov")
    return args, {name: getattr(args, name) for name in arguments.RUN_DEFAULTS | defaults}


def _before_recipes(defaults: Mapping, recipes: Mapping[str, Mapping]) -> dict:
    """What a checkpoint goes by that says nothing of recipes, because there were none yet."""
    first = arguments.RUN_DEFAULTS["recipe"]
    values = all_values(recipes[first]) | dict(defaults)
    return {"recipe": first, "holdout": None} | {name: values[name] for name in NAMES}


def _command(*words: object) -> str:
    """The command line that runs this script, in this environment, with the flags `words`."""
    python = "python" if shutil.which("python") == sys.executable else sys.executable
    backend = keras.backend.backend()
    set_backend = [] if backend == "tensorflow" else [f"KERAS_BACKEND={backend}"]
    return shlex.join([*set_backend, python, sys.argv[0], *map(str, words)])


def _set_up(run: Run, given: Namespace) -> Run:
    """Check where files come from and go, before time is spent; fix what Keras takes from global state."""
    args = run.args
    if run.checkpoint is not None:
        batch = f", batch {run.start[1]}" if run.start[1] else ""
        print(printable(f"going on from {run.checkpoint.path}, epoch {run.start[0]}{batch}"))
        if given.data is None and args.data not in (None, DIGITS) and not Path(args.data).exists():
            raise InputError(
                f"the checkpoint's --data {args.data} does not exist, seen from {Path.cwd()}; name the place of the "
                "same images with --data"
            )
    for path in (run.folder, Path(args.output), *([run.model_path.parent] if run.model_path else [])):
        check_folder(path)
    with console.quiet_start():  # Keras imports TensorFlow to seed it too, where it is installed beside JAX.
        keras.utils.set_random_seed(args.seed)  # the first weights; nothing else draws from it
    keras.config.set_dtype_policy(args.precision)
    print(f"recipe {args.recipe}: {run.recipe}")
    # A path is relative to the folder that a run is started in, which on a resume may be another one.
    inherited = run.checkpoint is not None and given.output is None
    of_checkpoint = f" (the checkpoint's --output {args.output})" if inherited else ""
    print(printable(f"checkpoints go to {run.folder.absolute()}"))
    print(printable(f"plot and history go to {Path(args.output).absolute() / run.script}.png and .json{of_checkpoint}"))
    print(f"to stop press Ctrl+C, which saves; then go on with: {run.command}", flush=True)
    return run
