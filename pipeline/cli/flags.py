"""The flags of a training run, a row each, and what their values may be. Standard library only.

Everything about a flag follows from its row: the parser and its help, what a resumed run takes from its checkpoint and
what may differ from it (see `pipeline.cli.arguments`), and which values a file may hold.
"""

import math
import os
import re
import struct
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.errors import InputError


def _number(kind: type, fits: Callable[[float], bool], expected: str, text: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = None
    # Python takes 1_000, blanks around a number and the digits of any script.
    if value is None or not re.fullmatch(r"[-+.0-9a-zA-Z]+", text, re.ASCII) or not fits(value):
        raise ArgumentTypeError(f"{text!r} is not {expected}")
    if kind is float and not fits(_as_float32(value)):
        raise ArgumentTypeError(f"{text!r} is not {expected}, rounded to float32")
    return value


def _as_float32(value: float) -> float:
    """The float32 nearest to `value`; 0 below the least normal one, which processors flush to it."""
    try:
        (rounded,) = struct.unpack("f", struct.pack("f", value))
    except OverflowError:
        return math.copysign(math.inf, value)
    return rounded if abs(rounded) >= 2.0**-126 else 0.0


def _whole(least: int, largest: int | None = None) -> Callable[[str], int]:
    """The type of a whole number from `least` to `largest`."""
    expected = f"of at least {least}" if largest is None else f"from {least} to {largest}"
    fits = partial(_is_within, least, math.inf if largest is None else largest)
    return partial(_number, int, fits, f"a whole number {expected}")


def _is_within(least: float, largest: float, value: float) -> bool:
    return least <= value <= largest


# Each type turns the text of a flag into its value, or raises ArgumentTypeError.
count, whole = _whole(1), _whole(0)
epochs = _whole(1, 10**6)  # which a step counter of any backend can hold
threads = _whole(1, 256)
seed = _whole(0, 2**32 - 1)  # which NumPy and Keras take
positive = partial(_number, float, lambda value: 0 < value < math.inf, "a number above 0")
non_negative = partial(_number, float, lambda value: 0 <= value < math.inf, "a number of at least 0")
fraction = partial(_number, float, lambda value: 0 <= value < 1, "a number from 0 up to but not 1")
shift = partial(_number, float, partial(_is_within, 0, 4096), "a number from 0 to 4096")
angle = partial(_number, float, partial(_is_within, 0, 180), "degrees from 0 to 180")
# What Beta(alpha, alpha) is defined and can be drawn for, or 0.
beta_parameter = partial(_number, float, lambda v: v == 0 or 1e-3 <= v <= 1e3, "0, or a number from 0.001 to 1000")


def counts(text: str) -> tuple[int, ...]:
    """Whole numbers of at least 1, separated by commas."""
    try:
        return tuple(count(part) for part in text.split(","))
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"{text!r} is not whole numbers of at least 1 with commas between, as 9,9,9") from error


def path(text: str) -> str:
    """The path of a file or folder, with the home folder in place of a leading ~ or ~user.

    A shell replaces that only where a word begins with it, so not in --output=~/runs.
    """
    expanded = os.path.expanduser(text)
    if text.startswith("~") and expanded == text:
        raise ArgumentTypeError(f"{text!r}: no home folder is known for this; a name that begins with ~ is ./{text}")
    if not text:
        raise ArgumentTypeError("'' is no path")
    return expanded


def file_path(text: str) -> Path:
    """As `path`, for what is handled as a `Path`."""
    return Path(path(text))


def model_file(text: str) -> Path:
    """The name of a model's HDF5 file."""
    file = file_path(text)
    if file.suffix not in (".hdf5", ".h5"):
        raise ArgumentTypeError(f"{text!r} is not a file name that ends in .hdf5")
    return file


@dataclass(frozen=True)
class OneOf:
    """The type of a flag that is one of `words`."""

    words: tuple[str, ...]

    def __call__(self, text: str) -> str:
        if text not in self.words:
            raise ArgumentTypeError(f"{text!r} is not {', '.join(self.words[:-1])} or {self.words[-1]}")
        return text


def switch(text: str) -> bool:
    """A flag without a value: --NAME, or --no_NAME."""
    raise ArgumentTypeError(f"{text!r} is given to a flag that takes no value")


# What a flag is of: the run, stored with it; the process that goes about it, stored too and free to change; the recipe,
# a part of the run.
RUN, PROCESS, RECIPE = "run", "process", "recipe"
# The default of a flag that each script has its own for, in config.
OWN = object()


@dataclass(frozen=True)
class Flag:
    """A flag of the training scripts, named without its dashes."""

    name: str
    type: Callable[[str], object]
    metavar: str | None
    help: str
    default: object = None
    """`OWN`, or its value unless it is given; None if it may have none. Of the recipe's, off."""
    kind: str = RUN
    changes: str = "never"
    """Whether a resume may change it: "never", "always", or while the schedule is "constant". Of a process always."""
    stored: bool = True
    """Whether checkpoints hold it."""
    short: str | None = None

    def saved(self, stored: object) -> object:
        """The value that a file holds, as the parser returns it; JSON has no tuples.

        Raises:
            InputError: it is what the parser never returns.
        """
        if stored is None and self.default is None:
            return None
        wrong = InputError(f"the checkpoint's --{self.name} can't be {stored!a:.100}")
        if self.type in (switch, path, str):
            if not isinstance(stored, bool if self.type is switch else str) or not str(stored).isprintable():
                raise wrong
            return stored
        kinds = str if isinstance(self.type, OneOf) else (list, tuple) if self.type is counts else (int, float)
        if not isinstance(stored, kinds):
            raise wrong
        try:
            return self.type(as_text(stored))
        except ArgumentTypeError as error:
            raise InputError(f"the checkpoint's --{self.name} can't be: {error!s:.200}") from error


# fmt: off
ROWS = (
    # Its help is the data set's own, in config.
    Flag("data", path, "PATH", "", changes="always"),
    Flag("epochs", epochs, "N", "number of the last epoch", OWN, changes="constant"),
    Flag("batch_size", count, "N", "images a step", OWN),
    Flag("lr", positive, "RATE", "learning rate of SGD, of a decay at its start; on a resume, a change of it", OWN,
         changes="always"),
    Flag("momentum", fraction, "M", "momentum of SGD, 0 up to 1", OWN),
    Flag("stages", counts, "N,N,...", "bottleneck modules in each stage", OWN),
    Flag("filters", counts, "N,N,...", "channels out of the stem and of each stage", OWN),
    Flag("seed", seed, "N", "of the first weights, the order of data and the augmentation", 42),
    Flag("precision", OneOf(("float32", "mixed_bfloat16")), None, "what a step computes in", "float32"),
    Flag("limit", count, "N", "train on N images, a fixed choice, and test on as many, for a quick look"),
    Flag("holdout", count, "N",
         "hold N training images out, a fixed choice, and validate on them: the test set stays untouched"),
    Flag("stop_after", count, "N", "end cleanly after epoch N of a longer run", kind=PROCESS, stored=False),
    Flag("every", count, "N", "epochs between two checkpoints; the last epoch always has one", 5, PROCESS),
    Flag("keep", count, "N", "keep the N newest epochs' checkpoints and the best (default: all)", kind=PROCESS),
    Flag("checkpoint_seconds", positive, "S", "save inside an epoch too, every S seconds (default: only when stopped)",
         kind=PROCESS),
    Flag("workers", threads, "N", "threads that prepare batches; the batches are the same for any N", 2, PROCESS),
    Flag("output", path, "DIR", "folder of the plot and the history", "output", PROCESS, short="o"),
    Flag("recipe", str, None, "what the flags below are worth where they aren't given", OWN),
    Flag("schedule", OneOf(("constant", "poly", "cosine")), None,
         "whether the learning rate falls to 0 from epoch to epoch, and how", "constant", RECIPE),
    Flag("warmup_epochs", whole, "N", "first epochs, in which the rate rises step by step", 0, RECIPE),
    Flag("nesterov", switch, None, "look ahead along the momentum (Nesterov, 1983)", False, RECIPE),
    Flag("reg", non_negative, "L2", "L2 coefficient of every kernel", 0.0, RECIPE),
    Flag("rotation_range", angle, "DEGREES", "largest rotation of a training image, either way", 0.0, RECIPE),
    Flag("zoom_range", fraction, "Z", "factors from 1 - Z to 1 + Z, of width and height each", 0.0, RECIPE),
    Flag("width_shift_range", shift, "W", "largest shift, as a fraction of the width if below 1, else in pixels", 0.0,
         RECIPE),
    Flag("height_shift_range", shift, "H", "the same of the height", 0.0, RECIPE),
    Flag("shear_range", angle, "DEGREES", "largest shear angle, either way", 0.0, RECIPE),
    Flag("pad_crop", whole, "N", "pad by N mirrored pixels on each side, and crop", 0, RECIPE),
    Flag("flip", OneOf(("none", "random", "alternate")), None,
         "mirror a random half of the images each epoch, or one half and the other in turn", "none", RECIPE),
    Flag("cutout", whole, "N", "set a square of N pixels a side to the mean colour", 0, RECIPE),
    Flag("mixup", beta_parameter, "ALPHA", "blend pairs of images and labels, at a ratio from Beta(ALPHA, ALPHA)", 0.0,
         RECIPE),
    Flag("cutmix", beta_parameter, "ALPHA",
         "paste a box of one image into another, its area from Beta(ALPHA, ALPHA); with --mixup a batch has either",
         0.0, RECIPE),
    Flag("label_smoothing", fraction, "E", "spread E of a training label over all classes", 0.0, RECIPE),
    Flag("ema", fraction, "DECAY",
         "keep a moving average of all weights too, which the trained model then has; 0 for none", 0.0, RECIPE),
)
# fmt: on
FLAGS = {flag.name: flag for flag in ROWS}


def recipe_values(table: Mapping[str, object]) -> dict[str, object]:
    """Every value of a recipe, of which `table` names those that are not off."""
    return {flag.name: table.get(flag.name, flag.default) for flag in ROWS if flag.kind == RECIPE}


def described(values: Mapping[str, object]) -> str:
    """The values of a recipe, those that are off by their names alone."""
    recipe = recipe_values(values)
    off = [name for name, value in recipe.items() if value in (0, "none")]
    on = [f"{name} {value}" for name, value in recipe.items() if name not in off]
    return f"{', '.join(on)}; off: {', '.join(off) or 'nothing'}"


def changeable(values: Mapping[str, object]) -> frozenset[str]:
    """The names of those of the stored `values` of a run that may be others when it goes on."""
    # A decay is reckoned from its last epoch.
    words = {"always", "constant"} if values.get("schedule") == "constant" else {"always"}
    return frozenset(flag.name for flag in ROWS if flag.kind == PROCESS or flag.changes in words)


def saved_values(saved: Mapping[str, object], names: Iterable[str]) -> dict[str, object]:
    """Those of `saved`, flags by their names as a file holds them, that are among `names`, as the parser returns them.

    Raises:
        InputError: one of them is what no flag can be.
    """
    return {name: FLAGS[name].saved(saved[name]) for name in names if name in saved}


def as_text(value: object) -> str:
    """A flag's value as its user would write it."""
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def as_flag(name: str, value: object) -> str:
    """A flag and its value as its user would write them."""
    if FLAGS[name].type is switch:
        return f"--{name}" if value else f"--no_{name}"
    return f"--{name} {as_text(value)}"
