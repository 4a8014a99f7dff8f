"""The flags of the training scripts, one row each, and the types of their values. Standard library only.

Everything about a flag follows from its row: its help, the value that a resumed run takes from the checkpoint, whether
it may differ from that (see `pipeline.cli.arguments`), and the values that a file may hold.
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
from types import ModuleType

from pipeline.errors import InputError


def _number(kind: type, fits: Callable[[float], bool], expected: str, text: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = None
    # Python also takes 1_000, surrounding blanks, and non-ASCII digits.
    if value is None or not re.fullmatch(r"[-+.0-9a-zA-Z]+", text, re.ASCII) or not fits(value):
        raise ArgumentTypeError(f"{text!r} is not {expected}")
    if kind is float and not fits(_as_float32(value)):
        raise ArgumentTypeError(f"{text!r} is not {expected}, rounded to float32")
    return value


def _as_float32(value: float) -> float:
    """Return the float32 nearest to `value`; 0 for subnormal numbers, which processors flush to 0."""
    try:
        (rounded,) = struct.unpack("f", struct.pack("f", value))
    except OverflowError:
        return math.copysign(math.inf, value)
    return rounded if abs(rounded) >= 2.0**-126 else 0.0


def _whole(least: int, largest: int | None = None) -> Callable[[str], int]:
    """Return the type of a whole number from `least` to `largest`."""
    expected = f"of at least {least}" if largest is None else f"from {least} to {largest}"
    fits = partial(_is_within, least, math.inf if largest is None else largest)
    return partial(_number, int, fits, f"a whole number {expected}")


def _is_within(least: float, largest: float, value: float) -> bool:
    return least <= value <= largest


# A type converts the text of a flag to its value, or raises ArgumentTypeError.
count, whole = _whole(1), _whole(0)
epochs = _whole(1, 10**6)  # fits the step counter of every backend
threads = _whole(1, 256)
image_size = _whole(1, 4096)
shards = _whole(1, 256)  # each is an open file
seed = _whole(0, 2**32 - 1)  # the range of NumPy and Keras
positive = partial(_number, float, lambda value: 0 < value < math.inf, "a number above 0")
non_negative = partial(_number, float, lambda value: 0 <= value < math.inf, "a number of at least 0")
ratio = partial(_number, float, lambda value: 0 < value <= 1, "a number above 0 and at most 1")
aspect_ratio = partial(_number, float, partial(_is_within, 1, 100), "a number from 1 to 100")
view_ratio = partial(_number, float, partial(_is_within, 0.1, 1), "a number from 0.1 to 1")
fraction = partial(_number, float, lambda value: 0 <= value < 1, "a number of at least 0 and below 1")
shift = partial(_number, float, partial(_is_within, 0, 4096), "a number from 0 to 4096")
angle = partial(_number, float, partial(_is_within, 0, 180), "an angle from 0 to 180 degrees")
# Beta(alpha, alpha) can be drawn for these; 0 turns mixing off.
beta_parameter = partial(_number, float, lambda v: v == 0 or 1e-3 <= v <= 1e3, "0, or a number from 0.001 to 1000")


def counts(text: str) -> tuple[int, ...]:
    """Parse whole numbers of at least 1, separated by commas."""
    try:
        return tuple(count(part) for part in text.split(","))
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"{text!r} is not a list of whole numbers of at least 1, such as 9,9,9") from error


def path(text: str) -> str:
    """Parse the path of a file or folder, and expand a leading ~ or ~user.

    Shells don't expand it inside a word, as in --output=~/runs.
    """
    expanded = os.path.expanduser(text)
    if text.startswith("~") and expanded == text:
        raise ArgumentTypeError(f"{text!r}: unknown home folder; write ./{text} for a file name that begins with ~")
    if not text:
        raise ArgumentTypeError("'' is not a path")
    return expanded


def file_path(text: str) -> Path:
    """Parse as `path` does, and return a `Path`."""
    return Path(path(text))


def model_file(text: str) -> Path:
    """Parse the name of a model's HDF5 file."""
    file = file_path(text)
    if file.suffix not in (".hdf5", ".h5"):
        raise ArgumentTypeError(f"{text!r} does not end in .hdf5 or .h5")
    return file


def csv_file(text: str) -> str:
    """Parse the name of a CSV file, as a text, which checkpoints store."""
    if not (file := path(text)).endswith(".csv"):
        raise ArgumentTypeError(f"{text!r} does not end in .csv")
    return file


@dataclass(frozen=True)
class OneOf:
    """The type of a flag whose value is one of `words`."""

    words: tuple[str, ...]

    def __call__(self, text: str) -> str:
        if text not in self.words:
            raise ArgumentTypeError(f"{text!r} is not one of {', '.join(self.words)}")
        return text


def switch(text: str) -> bool:
    """Reject any value: the type of a flag that takes none, --NAME or --no_NAME."""
    raise ArgumentTypeError(f"the flag takes no value; got {text!r}")


# The scope of a flag: RUN is stored and fixed for the run; RECIPE too, and a recipe sets its default; PROCESS is stored
# and may change on every resume.
RUN, PROCESS, RECIPE = "run", "process", "recipe"
# Each script has its own default, in config.
OWN = object()
# Images of one size are warped or padded; of images of any size, a random part is taken.
SAME_SIZE, ANY_SIZE = "same size", "any size"


@dataclass(frozen=True)
class Flag:
    """A flag of the training scripts; `name` omits the dashes."""

    name: str
    type: Callable[[str], object]
    metavar: str | None
    help: str
    default: object = None
    """The default value (a recipe's flag is off by default); `OWN` if each script has its own; None for no value."""
    scope: str = RUN
    changes: str = "never"
    """When a resume may change it: "never", "always", or "constant", if that is the schedule. `PROCESS`: always."""
    stored: bool = True
    """True if checkpoints store it."""
    short: str | None = None
    images: str | None = None
    """`SAME_SIZE` or `ANY_SIZE` if it is for such images only; None for both."""

    def saved(self, stored: object) -> object:
        """Convert a `stored` JSON value to what the parser returns; JSON has no tuples.

        Raises:
            InputError: the parser never returns such a value.
        """
        if stored is None and self.default is None:
            return None
        wrong = InputError(f"the checkpoint's --{self.name} has an invalid value, {stored!a:.100}")
        if self.type in (switch, path, csv_file, str):
            if not isinstance(stored, bool if self.type is switch else str) or not str(stored).isprintable():
                raise wrong
            return stored
        types = str if isinstance(self.type, OneOf) else (list, tuple) if self.type is counts else (int, float)
        if not isinstance(stored, types):
            raise wrong
        try:
            return self.type(as_text(stored))
        except ArgumentTypeError as error:
            raise InputError(f"the checkpoint's --{self.name} is invalid: {error!s:.200}") from error


# fmt: off
ROWS = (
    # Its help is in each data set's config.
    Flag("data", path, "PATH", "", changes="always"),
    Flag("epochs", epochs, "N", "number of the last epoch", OWN, changes="constant"),
    Flag("batch_size", count, "N", "images per step", OWN),
    Flag("lr", positive, "RATE", "learning rate, or initial rate of a decay; on a resume, the new rate", OWN,
         changes="always"),
    Flag("momentum", fraction, "M", "momentum of SGD, at least 0 and below 1", OWN),
    Flag("stages", counts, "N,N,...", "bottleneck modules in each stage", OWN),
    Flag("filters", counts, "N,N,...", "output channels of the stem and of each stage", OWN),
    Flag("seed", seed, "N", "seed of initial weights, data order and augmentation", 42),
    Flag("precision", OneOf(("float32", "mixed_bfloat16")), None, "dtype policy of Keras", "float32"),
    Flag("limit", count, "N", "train on a fixed random subset of N images, and validate on as many, for a quick look"),
    Flag("holdout", count, "N", "hold out a fixed random subset of N training images, and validate on it"),
    Flag("image_size", image_size, "N", "height and width of the network's images", OWN, images=ANY_SIZE),
    Flag("eval_ratio", view_ratio, "R", "validate on the central N x N pixels of images with a shorter side of N / R",
         OWN, images=ANY_SIZE),
    Flag("stop_after", count, "N", "stop cleanly after epoch N of a longer run", scope=PROCESS, stored=False),
    Flag("every", count, "N", "save a checkpoint every N epochs, and after the last", 5, PROCESS),
    Flag("keep", count, "N", "keep only the newest N epoch checkpoints and the best (default: all)", scope=PROCESS),
    Flag("checkpoint_seconds", positive, "S", "also save every S seconds inside an epoch (default: only when stopped)",
         scope=PROCESS),
    Flag("workers", threads, "N", "threads that prepare batches; any number gives the same batches", 2, PROCESS),
    Flag("output", path, "DIR", "folder for plot and history", "output", PROCESS, short="o"),
    Flag("page", switch, None, "write a page for the browser with the curves and the progress, beside the plot", True,
         PROCESS),
    Flag("csv", csv_file, "FILE", "also write the curves to this CSV file, through Keras' CSVLogger", scope=PROCESS),
    Flag("tensorboard", path, "DIR", "also log the curves for TensorBoard; needs requirements-tensorboard.txt",
         scope=PROCESS),
    Flag("recipe", str, None, "default values of the flags below", OWN),
    Flag("schedule", OneOf(("constant", "poly", "cosine")), None,
         "decay of the learning rate to 0 over the epochs: none, linear, or half a cosine", "constant", RECIPE),
    Flag("warmup_epochs", whole, "N", "raise the rate step by step over the first N epochs", 0, RECIPE),
    Flag("nesterov", switch, None, "use Nesterov momentum", False, RECIPE),
    Flag("reg", non_negative, "L2", "L2 coefficient of every kernel", 0.0, RECIPE),
    Flag("rotation_range", angle, "DEGREES", "rotate by up to this angle in either direction", 0.0, RECIPE,
         images=SAME_SIZE),
    Flag("zoom_range", fraction, "Z", "zoom width and height, separately, by factors from 1 - Z to 1 + Z", 0.0, RECIPE,
         images=SAME_SIZE),
    Flag("width_shift_range", shift, "W",
         "shift horizontally by up to W pixels, or if W < 1, by up to W times the width", 0.0, RECIPE,
         images=SAME_SIZE),
    Flag("height_shift_range", shift, "H",
         "shift vertically by up to H pixels, or if H < 1, by up to H times the height", 0.0, RECIPE,
         images=SAME_SIZE),
    Flag("shear_range", angle, "DEGREES", "shear by up to this angle in either direction", 0.0, RECIPE,
         images=SAME_SIZE),
    Flag("pad_crop", whole, "N", "pad with N mirrored pixels on each side, then crop at random", 0, RECIPE,
         images=SAME_SIZE),
    Flag("crop_area", ratio, "A", "crop a random part of at least A times the image's area, and resize it", 1.0, RECIPE,
         images=ANY_SIZE),
    Flag("crop_ratio", aspect_ratio, "R", "crop with a ratio of width to height from 1 / R to R", 1.0, RECIPE,
         images=ANY_SIZE),
    Flag("color_jitter", fraction, "J", "change brightness, contrast and saturation by factors from 1 - J to 1 + J",
         0.0, RECIPE, images=ANY_SIZE),
    Flag("flip", OneOf(("none", "random", "alternate")), None,
         "mirror a random half of the images in each epoch, or the two halves in alternate epochs", "none", RECIPE),
    Flag("cutout", whole, "N", "set a random square of N x N pixels to the mean colour", 0, RECIPE),
    Flag("mixup", beta_parameter, "ALPHA", "blend pairs of images and labels by a ratio from Beta(ALPHA, ALPHA)", 0.0,
         RECIPE),
    Flag("cutmix", beta_parameter, "ALPHA",
         "paste a box from another image, its area drawn from Beta(ALPHA, ALPHA); with --mixup, each batch uses one of "
         "the two", 0.0, RECIPE),
    Flag("label_smoothing", fraction, "E", "spread E of each training label over all classes", 0.0, RECIPE),
    Flag("ema", fraction, "DECAY",
         "average the weights with this decay, validate the averages, and use them in the trained model; 0 is off", 0.0,
         RECIPE),
)
# fmt: on
FLAGS = {flag.name: flag for flag in ROWS}


def rows(config: ModuleType) -> tuple[Flag, ...]:
    """Return the flags of the scripts that train on the data set of the module `config`."""
    images = getattr(config, "IMAGE_SIZES", SAME_SIZE)
    return tuple(flag for flag in ROWS if flag.images in (None, images))


def recipe_values(table: Mapping[str, object]) -> dict[str, object]:
    """Return all values of a recipe; `table` names those that are on."""
    return {flag.name: table.get(flag.name, flag.default) for flag in ROWS if flag.scope == RECIPE}


def describe_recipe(values: Mapping[str, object]) -> str:
    """Describe a recipe in one line: the values that are on, then the names of those that are off."""
    recipe = {flag.name: values[flag.name] for flag in ROWS if flag.scope == RECIPE and flag.name in values}
    off = [name for name, value in recipe.items() if name != "schedule" and value == FLAGS[name].default]
    on = [f"{name} {value}" for name, value in recipe.items() if name not in off]
    return f"{', '.join(on)}; off: {', '.join(off) or 'nothing'}"


def changeable(values: Mapping[str, object]) -> frozenset[str]:
    """Return the names of the flags that a resume of a run with the stored `values` may change."""
    # A decay depends on the number of epochs.
    words = {"always", "constant"} if values.get("schedule") == "constant" else {"always"}
    return frozenset(flag.name for flag in ROWS if flag.scope == PROCESS or flag.changes in words)


def saved_values(saved: Mapping[str, object], names: Iterable[str]) -> dict[str, object]:
    """Return the values of the flags `names` that a file's `saved` values include, as the parser would return them.

    Raises:
        InputError: a value is invalid.
    """
    return {name: FLAGS[name].saved(saved[name]) for name in names if name in saved}


def as_text(value: object) -> str:
    """Return a flag's value as typed on the command line."""
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def as_flag(name: str, value: object) -> str:
    """Return a flag and its value as typed on the command line."""
    if FLAGS[name].type is switch:
        return f"--{name}" if value else f"--no_{name}"
    return f"--{name} {as_text(value)}"
