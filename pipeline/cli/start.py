"""A training run as the command line, and the checkpoint that it goes on from, settle it."""

import shlex
import shutil
import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import keras

from pipeline.checkpoints.checkpoint import Checkpoint
from pipeline.checkpoints.folder import CheckpointFolder, find_checkpoint, list_checkpoints
from pipeline.checkpoints.history import new_history
from pipeline.cli import arguments, console, flags
from pipeline.data.cifar10 import DIGITS
from pipeline.errors import InputError
from pipeline.files.atomic import check_folder
from pipeline.runs import Run
from pipeline.utils.text import printable

# Those of a run's values that `ResNet.build` takes.
_OF_NETWORK = ("stages", "filters", "reg")


def start_by_hand(given: Namespace, script: str, config: ModuleType) -> Run:
    """The run of a script in which the learning rate is set by hand.

    Args:
        given: what the parser returned, None for a flag that wasn't given.
        script: name of the script, without its ending.
        config: the data set's.

    Raises:
        InputError: a flag contradicts the checkpoint, another script wrote it, or a folder can't be written to.
    """
    default = Path(given.checkpoints or config.CHECKPOINTS)
    found = list_checkpoints(default) if given.model == "latest" else None
    checkpoint = find_checkpoint(given.model, default)
    start_epoch = checkpoint.epoch if checkpoint else 0
    if given.start_epoch not in (None, start_epoch):
        hint = "" if checkpoint else "; name the checkpoint with --model"
        raise InputError(f"--start_epoch {given.start_epoch} differs from the epoch to go on from, {start_epoch}{hint}")
    folder = checkpoint.path.parent if checkpoint and not given.checkpoints else default
    run = _run(given, script, config.BY_HAND, config.RECIPES, checkpoint, folder)
    return _set_up(replace(run, command=_command("--checkpoints", folder, "--model", "latest"), found=found), given)


def start_decay(given: Namespace, script: str, config: ModuleType) -> Run:
    """The run of a script in which the learning rate decays; arguments and errors as in `start_by_hand`."""
    folder = given.model.with_suffix("")
    found = list_checkpoints(folder) if given.resume else None
    checkpoint = find_checkpoint("latest" if given.resume else None, folder)
    run = _run(given, script, config.DECAY, config.RECIPES, checkpoint, folder)
    command = _command("--model", given.model, "--resume")
    return _set_up(replace(run, command=command, found=found, model_path=given.model), given)


def _run(
    given: Namespace, script: str, defaults: Mapping, recipes: Mapping, checkpoint: Checkpoint | None, folder: Path
) -> Run:
    """The run, its values resolved."""
    if checkpoint is None:
        args = arguments.resolve(given, defaults, recipes)
        history = new_history({"script": script, "learning_rate_changes": []})
    else:
        history = checkpoint.history
        _check_resumable(checkpoint, script)
        args = arguments.resolve(given, defaults, recipes, history["run"]["arguments"], checkpoint.options)
        for name in _OF_NETWORK:
            if flags.as_text(getattr(args, name)) != flags.as_text(checkpoint.network.get(name)):
                raise InputError(f"checkpoint {checkpoint.path} is of another network than its --{name} says")
    stored = arguments.stored(vars(args))
    # A change of the rate is for its owner to make, and to record.
    stored["lr"] = history["run"].get("arguments", stored)["lr"]
    history["run"]["arguments"] = stored
    options = arguments.stored(vars(args), process=True)
    checkpoints = CheckpointFolder(folder, history, options, args.keep, flags.changeable(stored))
    on_terminal = sys.stdout.isatty()
    ask = console.ask if on_terminal and sys.stdin.isatty() else None
    new_lr = None if checkpoint is None else given.lr
    return Run(script, args, checkpoints, checkpoint, "", new_lr=new_lr, ask=ask, draws_progress=on_terminal)


def _check_resumable(checkpoint: Checkpoint, script: str) -> None:
    """Raise `InputError` unless `script` wrote the checkpoint, and it has all that a resume needs."""
    record = checkpoint.history["run"]
    if record.get("script") != script:
        writer = f"{record['script']}.py; go on with that script" if "script" in record else "another program"
        raise InputError(f"checkpoint {checkpoint.path} was written by {writer}")
    if missing := {"arguments", "data", "learning_rate_changes", "steps"} - record.keys():
        raise InputError(f"checkpoint {checkpoint.path} lacks {', '.join(sorted(missing))} of its run")
    if "lr" not in record["arguments"]:
        raise InputError(f"checkpoint {checkpoint.path} lacks the learning rate of its run")


def _command(*words: object) -> str:
    """The command line that runs this script, in this environment, with the flags `words`."""
    python = "python" if shutil.which("python") == sys.executable else sys.executable
    backend = keras.backend.backend()
    set_backend = [] if backend == "tensorflow" else [f"KERAS_BACKEND={backend}"]
    return shlex.join([*set_backend, python, sys.argv[0], *map(str, words)])


def _set_up(run: Run, given: Namespace) -> Run:
    """Check where files come from and go, before time is spent; fix what Keras takes from global state."""
    args, folder = run.args, run.checkpoints.folder
    if run.resumed is not None:
        batch = f", batch {run.progress[1]}" if run.progress[1] else ""
        print(printable(f"going on from {run.resumed.path}, epoch {run.progress[0]}{batch}"))
    if args.data not in (None, DIGITS) and not Path(args.data).exists():
        whose = "" if given.data else "the checkpoint's "
        hint = "name the place of the images with --data"
        raise InputError(f"{whose}--data {args.data} does not exist, seen from {Path.cwd()}; {hint}")
    for path in (folder, Path(args.output), *([run.model_path.parent] if run.model_path else [])):
        check_folder(path)
    with console.quiet_start():  # Keras imports TensorFlow to seed it too, where it is installed beside JAX.
        keras.utils.set_random_seed(args.seed)  # the first weights; nothing else draws from it
    print(f"recipe {args.recipe}: {flags.described(vars(args))}")
    # A path is relative to the folder that a run is started in, which on a resume may be another one.
    inherited = run.resumed is not None and given.output is None
    of_checkpoint = f" (the checkpoint's --output {args.output})" if inherited else ""
    print(printable(f"checkpoints go to {folder.absolute()}"))
    print(printable(f"plot and history go to {Path(args.output).absolute()}{of_checkpoint}"))
    print(f"to stop press Ctrl+C, which saves; then go on with: {run.command}", flush=True)
    return run
