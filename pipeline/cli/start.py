"""Start or resume a training run from the command line."""

import shlex
import shutil
import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import keras

from pipeline.checkpoints.checkpoint import Checkpoint, check_resumable
from pipeline.checkpoints.folder import CheckpointFolder, find_checkpoint
from pipeline.checkpoints.history import new_history
from pipeline.checkpoints.listing import list_checkpoints
from pipeline.cli import arguments, console, flags
from pipeline.cli.published import comparable, experiments
from pipeline.data.cifar10 import DIGITS
from pipeline.errors import InputError
from pipeline.files.atomic import check_folder
from pipeline.training.runs import Run
from pipeline.utils.text import printable

# Flags that are arguments of `ResNet.build`.
_NETWORK_FLAGS = ("stages", "filters", "reg")


def start_by_hand(parsed: Namespace, script: str, config: ModuleType) -> Run:
    """Start or resume a run with the learning rate set by hand.

    Args:
        parsed: the parser's result; None for a flag that wasn't given.
        script: name of the script without its extension.
        config: module of the data set.

    Raises:
        InputError: a flag contradicts the checkpoint, another script wrote it, or a folder isn't writable.
    """
    default = Path(parsed.checkpoints or config.CHECKPOINTS)
    found = list_checkpoints(default) if parsed.model == "latest" else None
    checkpoint = find_checkpoint(parsed.model, default)
    start_epoch = checkpoint.epoch if checkpoint else 0
    if parsed.start_epoch not in (None, start_epoch):
        after = f"the checkpoint is after epoch {start_epoch}; omit the flag, or name another checkpoint"
        fresh = "a fresh run starts at epoch 0; name a checkpoint with --model"
        raise InputError(f"--start_epoch {parsed.start_epoch}: {after if checkpoint else fresh}")
    folder = checkpoint.path.parent if checkpoint and not parsed.checkpoints else default
    run = _create_run(parsed, script, config.BY_HAND, config.RECIPES, checkpoint, folder)
    command = command_line(sys.argv[0], "--checkpoints", folder, "--model", "latest")
    return _prepare(replace(run, command=command, found=found), parsed)


def start_decay(parsed: Namespace, script: str, config: ModuleType) -> Run:
    """Start or resume a run with learning rate decay; arguments and errors as in `start_by_hand`."""
    folder = parsed.model.with_suffix("")
    found = list_checkpoints(folder) if parsed.resume else None
    checkpoint = find_checkpoint("latest" if parsed.resume else None, folder)
    run = _create_run(parsed, script, config.DECAY, config.RECIPES, checkpoint, folder)
    command = command_line(sys.argv[0], "--model", parsed.model, "--resume")
    return _prepare(replace(run, command=command, found=found, model_path=parsed.model), parsed)


def _create_run(
    parsed: Namespace, script: str, defaults: Mapping, recipes: Mapping, checkpoint: Checkpoint | None, folder: Path
) -> Run:
    """Resolve the flags and create the run."""
    if checkpoint is None:
        args = arguments.resolve(parsed, defaults, recipes)
        history = new_history({"script": script, "learning_rate_changes": []})
    else:
        # A copy: the checkpoint's own record stays as it was.
        history = checkpoint.history | {"run": dict(checkpoint.history["run"])}
        check_resumable(checkpoint, script)
        args = arguments.resolve(parsed, defaults, recipes, history["run"]["arguments"], checkpoint.options)
        for name in _NETWORK_FLAGS:
            if flags.as_text(getattr(args, name)) != flags.as_text(checkpoint.network.get(name)):
                raise InputError(f"checkpoint {checkpoint.path}: its network contradicts its --{name}; name another")
    stored = arguments.stored(vars(args))
    # `LearningRate` changes and records it.
    stored["lr"] = history["run"].get("arguments", stored)["lr"]
    history["run"]["arguments"] = stored
    options = arguments.stored(vars(args), process=True)
    checkpoints = CheckpointFolder(folder, history, options, args.keep, flags.changeable(stored))
    on_terminal = sys.stdout.isatty()
    ask = console.ask if on_terminal and sys.stdin.isatty() else None
    new_lr = None if checkpoint is None else parsed.lr
    name = comparable(script, vars(args))
    reference = name and (name, experiments()[name]["curves"])
    options = {"new_lr": new_lr, "ask": ask, "draws_progress": on_terminal, "is_dry": parsed.dry_run}
    options |= {"reference": reference}
    return Run(script, args, checkpoints, checkpoint, "", **options)


def command_line(script: str, *words: object) -> str:
    """Return the command line that runs the file `script` with the flags `words` in this environment."""
    python = "python" if shutil.which("python") == sys.executable else sys.executable
    backend = keras.backend.backend()
    set_backend = [] if backend == "tensorflow" else [f"KERAS_BACKEND={backend}"]
    return shlex.join([*set_backend, python, script, *map(str, words)])


def check_data(data: str | None, whose: str = "") -> None:
    """Raise `InputError` if `data`, the value of `whose` flag --data, names nothing."""
    if data not in (None, DIGITS) and not Path(data).exists():
        raise InputError(f"{whose}--data {data} does not exist in {Path.cwd()}; name an existing file or folder")


def _prepare(run: Run, parsed: Namespace) -> Run:
    """Check input and output paths, seed Keras, and print where the run starts and how to resume it."""
    args, folder = run.args, run.checkpoints.folder
    run.report_start()
    check_data(args.data, "" if parsed.data else "the checkpoint's ")
    for path in (folder, Path(args.output), *([run.model_path.parent] if run.model_path else [])):
        check_folder(path)
    with console.quiet_start():  # Keras imports TensorFlow, if it is installed, to seed it, even on JAX.
        keras.utils.set_random_seed(args.seed)  # for the initial weights; nothing else draws from it
    print(f"recipe {args.recipe}: {flags.describe_recipe(vars(args))}")
    # Paths are relative to the working directory, which may differ on a resume.
    inherited = run.resumed is not None and parsed.output is None
    of_checkpoint = f" (the checkpoint's --output {args.output})" if inherited else ""
    print(printable(f"checkpoints: {folder.absolute()}"))
    outputs = "page, plot and history" if args.page else "plot and history"
    print(printable(f"{outputs}: {Path(args.output).absolute()}{of_checkpoint}"))
    if not run.is_dry:
        print(f"Ctrl+C saves and stops; resume with: {run.command}")
    sys.stdout.flush()
    return run
