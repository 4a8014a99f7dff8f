"""Find a learning rate: train with a rate that rises from 0.00001 to 10, and see where the loss falls.

    python -m pipeline.find_lr --limit 5000 --stages 2,2,2
    python -m pipeline.find_lr --dataset tiny_imagenet --recipe modern --steps 400

This is the learning rate range test (Smith, arXiv:1506.01186), on the first batches of a run with the same flags: those
of the data set's training scripts that matter for its first steps. It suggests two rates, marks them in a plot of the
loss, and prints the command to train with. They are hints: see docs/recipes.md. An epoch must have at least 20 steps.
Runs and their files stay as they are; the files of an earlier test are moved aside.

Run it in the project's folder, or set PYTHONPATH to that folder.
"""

import json
import math
import os
from argparse import Namespace
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pipeline.cli import arguments, command, console, flags
from pipeline.cli.datasets import DATASETS, config_of
from pipeline.utils.text import printable

if TYPE_CHECKING:
    from pipeline.training.rangetest import RangeTest

_PROGRAM = "python -m pipeline.find_lr"
_STEPS, _OUTPUT = 200, "output/find_lr"
# Flags of a run that make no difference to its first steps.
_LATER = {"epochs", "lr", "eval_ratio", "schedule", "warmup_epochs", "ema"}


def parse_arguments() -> tuple[Namespace, list[str]]:
    """Return the parsed flags, and the words of the command line that are flags of the training scripts, too."""
    own = arguments.Parser("", _PROGRAM, add_help=False)
    own.add("dataset", None, None, "data set (default: cifar10)", choices=DATASETS, default="cifar10")
    own.add("steps", flags.count, "N", f"steps of the test (default: {_STEPS}, or an epoch if that is shorter)")
    output = f"folder for plot and numbers (default: {_OUTPUT})"
    own.add("output", flags.file_path, "DIR", output, default=Path(_OUTPUT), short="o")
    given, words = own.parse_known_args()
    config = config_of(given.dataset)
    parser = arguments.Parser(__doc__, _PROGRAM, parents=[own])
    arguments.add_data(parser, config)
    arguments.add_rows(parser, rows(config), config.BY_HAND, config)
    return parser.parse_args(), words


def rows(config: ModuleType) -> list[flags.Flag]:
    """Return the flags of the training scripts that matter for the first steps of a run."""
    return [
        flag
        for flag in flags.rows(config)
        if flag.name == "workers" or (flag.scope != flags.PROCESS and flag.name not in _LATER)
    ]


def main() -> None:
    parsed, words = parse_arguments()
    with console.quiet_start():
        from pipeline.cli.start import check_data
        from pipeline.files.atomic import check_folder

    config = config_of(parsed.dataset)
    args = arguments.resolve(parsed, config.BY_HAND, config.RECIPES)
    check_data(args.data)
    check_folder(args.output)
    test = train(args, config)
    if test.diverged:
        print(f"the loss diverged at the learning rate {test.rates[-1]:.2g}")
    for name, rate in {"valley": test.valley, "steepest slope": test.steepest, "lowest loss": test.lowest}.items():
        if rate is not None:
            print(f"{name}: learning rate {rate:.2g}")
    write(test, args, config)
    if rate := test.suggested:
        for line in commands(rate, parsed, words, config):
            print(printable(line))
    else:
        print("no suggestion: the loss doesn't fall; see the plot")


def train(args: Namespace, config: ModuleType) -> "RangeTest":
    """Build the network as the training scripts do, and train it with a rising rate."""
    with console.quiet_start():
        import keras

        from pipeline.cli.datasets import open_source
        from pipeline.cli.recipe import Recipe
        from pipeline.nn.conv import ResNet
        from pipeline.nn.optimizer import WarmupSGD
        from pipeline.training.rangetest import check_steps, range_test
        from pipeline.utils.environment import device

        keras.utils.set_random_seed(args.seed)  # imports TensorFlow, if it is installed, even on JAX
    recipe = Recipe.of(vars(args))
    data = open_source(args.dataset, args.data, vars(args))
    batches = data.train_batches(
        args.batch_size, recipe.augmentation, recipe.mixing, seed=args.seed, workers=args.workers
    )
    with closing(batches):
        keras.config.set_dtype_policy(args.precision)
        model = ResNet.build(
            *data.image_shape,
            classes=len(data.class_names),
            stages=args.stages,
            filters=args.filters,
            reg=args.reg,
            dataset=config.IMAGES["dataset"],
        )
        optimizer = WarmupSGD(momentum=args.momentum, nesterov=args.nesterov)  # without a warm-up
        model.compile(optimizer=optimizer, loss="categorical_crossentropy")
        steps = args.steps or min(_STEPS, batches.steps)
        check_steps(steps, batches.steps)
        print(
            f"{model.count_params():,} parameters, {batches.num_images:,} training images, {batches.steps} steps per "
            f"epoch, {keras.backend.backend()} on {device()}; the test takes {steps} steps",
            flush=True,
        )
        with console.progress("range test", steps, "steps") as advance:
            return range_test(model, batches, steps, advance=advance)


def write(test: "RangeTest", args: Namespace, config: ModuleType) -> None:
    """Write the numbers and the plot of the test; move those of an earlier one aside."""
    import keras

    from pipeline.files.atomic import move_aside, write_atomically
    from pipeline.plots.panels import as_png
    from pipeline.training.rangeplot import draw_range_test
    from pipeline.utils.environment import code_commit, device, versions

    record = {
        "dataset": args.dataset,
        "arguments": {flag.name: getattr(args, flag.name) for flag in rows(config)},
        "backend": keras.backend.backend(),
        "device": device(),
        "versions": versions(),
        "commit": code_commit(),
        "valley": test.valley,
        "steepest": test.steepest,
        "lowest": test.lowest,
        "suggested": test.suggested,
        "diverged": test.diverged,
        "rates": test.rates,
        "losses": [loss if math.isfinite(loss) else None for loss in test.losses],
        "smoothed": [loss if math.isfinite(loss) else None for loss in test.smoothed],
    }
    numbers, plot = (args.output / f"{args.dataset}.{suffix}" for suffix in ("json", "png"))
    for folder in move_aside([path for path in (numbers, plot) if path.exists()]):
        print(printable(f"moved earlier files to {folder}"))
    write_atomically(numbers, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
    try:
        picture = as_png(lambda: draw_range_test(test))
    except Exception as error:  # from Matplotlib's settings or fonts
        raise OSError(f"can't draw {plot}: {error}") from error
    write_atomically(plot, picture)
    print(printable(f"written: {plot}, {numbers}"))


def commands(rate: float, parsed: Namespace, words: Sequence[str], config: ModuleType) -> list[str]:
    """Return the commands that train with `rate` and the flags `words`, with the rate by hand and with its decay."""
    from pipeline.cli.start import command_line

    script = os.path.relpath(Path(__file__).parents[1] / DATASETS[parsed.dataset][2])
    words = ("--lr", f"{rate:.2g}", *words)
    # Defaults that the two scripts don't share.
    others = [
        word
        for flag in rows(config)
        if config.BY_HAND.get(flag.name) != config.DECAY.get(flag.name) and getattr(parsed, flag.name) is None
        for word in flags.as_flag(flag.name, config.BY_HAND[flag.name]).split()
    ]
    return [
        f"train with: {command_line(f'{script}.py', *words)}",
        f"or with decay: {command_line(f'{script}_decay.py', *words, *others)}",
    ]


if __name__ == "__main__":
    command.run(main, tidy=True)  # a progress bar hides the cursor
