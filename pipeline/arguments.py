"""The flags that the training scripts share, and what a flag is worth when a run is resumed. Standard library only.

A script takes the parser from `training_parser`, and adds the flags of its data set and of its way of choosing the
learning rate. No flag has a default there: `resolve` fills in what wasn't given, from the checkpoint where a run goes
on, else from the script's defaults.
"""

import argparse
import os
import sys
from argparse import Namespace
from collections.abc import Collection, Mapping
from functools import partial
from typing import NoReturn

from pipeline.errors import InputError
from pipeline.flags import TYPES, WORDS, as_flag, as_text, model_file, path, saved_value, whole
from pipeline.recipe import all_values

# What a run is: stored with it, and on a resume the same again.
RUN_DEFAULTS = {
    "data": None, "limit": None, "holdout": None, "seed": 42, "precision": "float32", "recipe": "published"
}  # fmt: skip
# How a process goes about it: stored too, and free to change. When to stop, `stop_after`, holds for one process.
OPTION_DEFAULTS = {"workers": 2, "every": 5, "keep": None, "checkpoint_seconds": None, "output": "output"}


class Parser(argparse.ArgumentParser):
    """Takes every flag with `-` in place of `_` too, and answers a wrong one in a single line, exit code 2."""

    def __init__(self, description: str, prog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_known_args(self, args=None, namespace=None):
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args([_with_underscores(word) for word in words], namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


def training_parser(description: str, defaults: Mapping, recipes: Mapping[str, Mapping]) -> Parser:
    """The parser of a training script.

    Args:
        description: what `--help` says first.
        defaults: the script's own, which `--help` states, and which win over a recipe's.
        recipes: a table of values for each name that `--recipe` takes (see `pipeline.recipe`).
    """
    parser = Parser(description)
    parser.epilog = (
        "Ctrl+C finishes the batch and saves; on a terminal it asks first, and takes another learning rate. SIGTERM,\n"
        "SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU, SIGQUIT and SIGPWR save and end. Exit codes: 0 done, 1 the disk failed,\n"
        "2 bad input, 128 and its number for a signal, as 130 for Ctrl+C and 143 for SIGTERM."
    )
    shared = RUN_DEFAULTS | OPTION_DEFAULTS
    tables = {recipe: shared | all_values(table) | dict(defaults) for recipe, table in recipes.items()}
    default = tables[RUN_DEFAULTS["recipe"]]

    def stated(name: str) -> str:
        """What the help says of the defaults."""
        others = {recipe: table[name] for recipe, table in tables.items() if table[name] != default[name]}
        return "; ".join(f"{of}: {as_text(value)}" for of, value in {"default": default[name], **others}.items())

    def add(*names: str, to: argparse._ActionsContainer = parser, **options) -> None:
        name = names[-1].removeprefix("--")
        if default.get(name) is not None:
            options["help"] += f" ({stated(name)})"
        if name in WORDS:
            options["metavar"] = f"{{{','.join(WORDS[name])}}}"
        to.add_argument(*names, type=TYPES.get(name), **options)

    add("--epochs", metavar="N", help="number of the last epoch")
    add("--batch_size", metavar="N", help="images a step")
    add("--lr", metavar="RATE", help="learning rate of SGD, of a decay at its start; on a resume, a change of it")
    add("--momentum", metavar="M", help="momentum of SGD, 0 up to 1")
    add("--stages", metavar="N,N,...", help="bottleneck modules in each stage")
    add("--filters", metavar="N,N,...", help="channels out of the stem and of each stage")
    add("--seed", metavar="N", help="of the first weights, the order of data and the augmentation")
    add("--precision", help="what a step computes in")
    add("--limit", metavar="N", help="train on N images, a fixed choice, and test on as many, for a quick look")
    add(
        "--holdout",
        metavar="N",
        help="hold N training images out, a fixed choice, and validate on them: the test set stays untouched",
    )
    add("--stop_after", metavar="N", help="end cleanly after epoch N of a longer run")
    add("--every", metavar="N", help="epochs between two checkpoints; the last epoch always has one")
    add("--keep", metavar="N", help="keep the N newest epochs' checkpoints and the best (default: all)")
    add(
        "--checkpoint_seconds",
        metavar="S",
        help="save inside an epoch too, every S seconds (default: only when stopped)",
    )
    add("--workers", metavar="N", help="threads that prepare batches; the batches are the same for any N")
    add_output(parser, f"folder of the plot and the history ({stated('output')})")

    group = parser.add_argument_group("the recipe, and each of its values, which wins over it")
    add = partial(add, to=group)
    group.add_argument(
        "--recipe", choices=recipes, help=f"what the flags below are worth where they aren't given ({stated('recipe')})"
    )
    add("--schedule", help="whether the learning rate falls to 0 from epoch to epoch, and how")
    add("--warmup_epochs", metavar="N", help="first epochs, in which the rate rises step by step")
    nesterov = group.add_mutually_exclusive_group()
    nesterov.add_argument(
        "--nesterov",
        action="store_true",
        default=None,
        help=f"look ahead along the momentum (Nesterov, 1983) ({stated('nesterov')})",
    )
    nesterov.add_argument("--no_nesterov", action="store_false", dest="nesterov", default=None, help="don't look ahead")
    add("--reg", metavar="L2", help="L2 coefficient of every kernel")
    add("--rotation_range", metavar="DEGREES", help="largest rotation of a training image, either way")
    add("--zoom_range", metavar="Z", help="factors from 1 - Z to 1 + Z, of width and height each")
    add("--width_shift_range", metavar="W", help="largest shift, as a fraction of the width if below 1, else in pixels")
    add("--height_shift_range", metavar="H", help="the same of the height")
    add("--shear_range", metavar="DEGREES", help="largest shear angle, either way")
    add("--pad_crop", metavar="N", help="pad by N mirrored pixels on each side, and crop")
    add("--flip", help="mirror a random half of the images each epoch, or one half and the other in turn")
    add("--cutout", metavar="N", help="set a square of N pixels a side to the mean colour")
    add("--mixup", metavar="ALPHA", help="blend pairs of images and labels, at a ratio from Beta(ALPHA, ALPHA)")
    add(
        "--cutmix",
        metavar="ALPHA",
        help="paste a box of one image into another, its area from Beta(ALPHA, ALPHA); with --mixup a batch has either",
    )
    add("--label_smoothing", metavar="E", help="spread E of a training label over all classes")
    add(
        "--ema",
        metavar="DECAY",
        help="keep a moving average of all weights too, which the trained model then has; 0 for none",
    )
    return parser


def add_by_hand(parser: Parser, checkpoints: str) -> None:
    """The flags of a script in which the learning rate is set by hand; `checkpoints` is its default folder."""
    parser.add_argument(
        "-c",
        "--checkpoints",
        type=path,
        metavar="DIR",
        help=f"folder of the checkpoints (default: that of --model, else {checkpoints})",
    )
    parser.add_argument("-m", "--model", type=path, metavar="FILE", help="checkpoint to go on from, or the word latest")
    parser.add_argument("-s", "--start_epoch", type=whole, metavar="N", help="epoch of --model, as a check")


def add_decay(parser: Parser, model: str) -> None:
    """The flags of a script in which the learning rate decays; `model` is the default file of the trained model."""
    parser.add_argument(
        "-m",
        "--model",
        type=model_file,
        metavar="FILE",
        default=model,
        help=f"file of the trained model; its checkpoints go to the folder of that name without ending "
        f"(default: {model})",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the folder")


def add_cifar10(parser: Parser) -> None:
    """The flag that names CIFAR-10, or what stands in its place."""
    parser.add_argument(
        "--data",
        type=path,
        metavar="PATH",
        help="cifar-10-python.tar.gz or cifar-10-binary.tar.gz, the folder unpacked from either, a folder of images "
        "train/<class>/ and test/<class>/, or the word digits (default: the official archive, downloaded once)",
    )


def add_tiny_imagenet(parser: Parser, folder: str, variable: str) -> None:
    """The flag that names Tiny ImageNet's folder; the environment `variable` may stand for it; else it is `folder`."""
    parser.add_argument(
        "--data",
        type=path,
        metavar="DIR",
        default=os.environ.get(variable) or None,
        help=f"folder of Tiny ImageNet, or one that its build wrote to (default: that in {variable}, else {folder})",
    )


def add_output(parser: Parser, what: str) -> None:
    """The flag that names the folder to write to; `what` says what is written."""
    parser.add_argument("-o", "--output", type=path, metavar="DIR", help=what)


def resolve(
    given: Namespace,
    defaults: Mapping,
    saved: Mapping | None = None,
    options: Mapping | None = None,
    free: Collection[str] = (),
) -> Namespace:
    """The values a run goes by: the flags given, else the checkpoint's, else the defaults.

    Args:
        given: what the parser returned, None for a flag that wasn't given.
        defaults: the script's own, beside `RUN_DEFAULTS` and `OPTION_DEFAULTS`.
        saved: the arguments of the run to go on with, or None for a fresh run.
        options: the options of the process that wrote the checkpoint.
        free: names of arguments that may differ from the saved ones.

    Raises:
        InputError: a flag contradicts the checkpoint, or the checkpoint holds what no flag can be.
    """
    options = options or {}
    resolved = vars(given).copy()
    for name, default in (OPTION_DEFAULTS | RUN_DEFAULTS | dict(defaults)).items():
        value = resolved.get(name)
        if saved is not None and name in saved:
            earlier = saved_value(name, saved[name])
            if value is None:
                resolved[name] = earlier
            elif value != earlier and name not in free:
                raise InputError(
                    f"{as_flag(name, value)} differs from the checkpoint's {as_flag(name, earlier)}; leave it out to "
                    "go on with the run, or start a fresh one without a checkpoint"
                )
        elif value is None:
            resolved[name] = saved_value(name, options[name]) if name in options else default
    return Namespace(**resolved)


def _with_underscores(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value
