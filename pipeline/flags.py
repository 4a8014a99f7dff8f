"""What a flag may be worth: from its text, and from a file that a run left. Standard library only."""

import math
import os
import re
import struct
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.errors import InputError


def count(text: str) -> int:
    """A whole number of at least 1."""
    return _number(text, int, lambda value: value >= 1, "a whole number of at least 1")


def counts(text: str) -> tuple[int, ...]:
    """Whole numbers of at least 1, separated by commas."""
    try:
        return tuple(count(part) for part in text.split(","))
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"{text!r} is not whole numbers of at least 1 with commas between, as 9,9,9") from error


def whole(text: str) -> int:
    """A whole number of at least 0."""
    return _number(text, int, lambda value: value >= 0, "a whole number of at least 0")


def epochs(text: str) -> int:
    """A number of epochs that a step counter of any backend can hold."""
    return _number(text, int, lambda value: 1 <= value <= 10**6, "a whole number from 1 to 1000000")


def threads(text: str) -> int:
    """A number of threads."""
    return _number(text, int, lambda value: 1 <= value <= 256, "a whole number from 1 to 256")


def seed(text: str) -> int:
    """A seed that NumPy and Keras take."""
    return _number(text, int, lambda value: 0 <= value < 2**32, "a whole number from 0 to 4294967295")


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


def positive(text: str) -> float:
    """A finite number above 0."""
    return _number(text, float, lambda value: 0 < value < math.inf, "a number above 0")


def non_negative(text: str) -> float:
    """A finite number of at least 0."""
    return _number(text, float, lambda value: 0 <= value < math.inf, "a number of at least 0")


def fraction(text: str) -> float:
    """A number from 0 up to but not 1."""
    return _number(text, float, lambda value: 0 <= value < 1, "a number from 0 up to but not 1")


def shift(text: str) -> float:
    """A fraction of an image's size, or pixels of the largest image."""
    return _number(text, float, lambda value: 0 <= value <= 4096, "a number from 0 to 4096")


def angle(text: str) -> float:
    """Degrees, up to what is left of an image."""
    return _number(text, float, lambda value: 0 <= value <= 180, "degrees from 0 to 180")


def beta_parameter(text: str) -> float:
    """What Beta(alpha, alpha) is defined and can be drawn for, or 0."""
    return _number(text, float, lambda value: value == 0 or 1e-3 <= value <= 1e3, "0, or a number from 0.001 to 1000")


def one_of(*words: str) -> Callable[[str], str]:
    """The type of a flag that is one of `words`."""

    def word(text: str) -> str:
        if text not in words:
            raise ArgumentTypeError(f"{text!r} is not {', '.join(words[:-1])} or {words[-1]}")
        return text

    return word


def _number(text: str, kind: type, fits: Callable[[float], bool], expected: str):
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


# What --data may name that is no path.
DIGITS = "digits"

# Flags whose value is one of a few words.
WORDS = {
    "precision": ("float32", "mixed_bfloat16"),
    "schedule": ("constant", "poly", "cosine"),
    "flip": ("none", "random", "alternate"),
}

# What turns the text of a flag into its value.
TYPES: dict[str, Callable[[str], object]] = {name: one_of(*words) for name, words in WORDS.items()} | {
    "epochs": epochs,
    "batch_size": count,
    "lr": positive,
    "momentum": fraction,
    "stages": counts,
    "filters": counts,
    "seed": seed,
    "limit": count,
    "holdout": count,
    "stop_after": count,
    "every": count,
    "keep": count,
    "checkpoint_seconds": positive,
    "workers": threads,
    "warmup_epochs": whole,
    "reg": non_negative,
    "rotation_range": angle,
    "zoom_range": fraction,
    "width_shift_range": shift,
    "height_shift_range": shift,
    "shear_range": angle,
    "pad_crop": whole,
    "cutout": whole,
    "mixup": beta_parameter,
    "cutmix": beta_parameter,
    "label_smoothing": fraction,
    "ema": fraction,
}

# What a file may hold beside these, and what it may hold no value of.
_SWITCHES = ("nesterov",)
_NAMES = ("data", "output", "recipe")
_OPTIONAL = ("data", "limit", "holdout", "keep", "checkpoint_seconds")
# How JSON holds what isn't a number.
_STORED_AS = dict.fromkeys(("stages", "filters"), (list, tuple)) | dict.fromkeys(WORDS, str)


def check_saved(values: Mapping[str, object]) -> None:
    """`InputError` if `values`, flags by their names as a file holds them, has what no flag can be."""
    for name, value in values.items():
        saved_value(name, value)


def saved_value(name: str, stored: object) -> object:
    """The value of a flag that a file holds, as the parser returns it; JSON has no tuples.

    Raises:
        InputError: it is what the parser never returns.
    """
    if name not in (*TYPES, *_SWITCHES, *_NAMES):
        raise InputError(f"there is no --{name!a:.100}")
    if stored is None and name in _OPTIONAL:
        return None
    if name in TYPES:
        try:
            if not isinstance(stored, _STORED_AS.get(name, (int, float))):
                raise ArgumentTypeError(f"{stored!a:.100} is of another type")
            return TYPES[name](as_text(stored))
        except ArgumentTypeError as error:
            raise InputError(f"the checkpoint's --{name} can't be: {error!s:.200}") from error
    if not isinstance(stored, bool if name in _SWITCHES else str) or not str(stored).isprintable():
        raise InputError(f"the checkpoint's --{name} can't be {stored!a:.100}")
    return stored


def changeable(values: Mapping[str, object]) -> set[str]:
    """The names of those of the stored flags `values` that may be others when their run goes on."""
    # A decay is reckoned from its last epoch.
    return {"lr", "data"} | ({"epochs"} if values.get("schedule") == "constant" else set())


def as_text(value: object) -> str:
    """A flag's value as its user would write it."""
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def as_flag(name: str, value: object) -> str:
    """A flag and its value as its user would write them."""
    if name in _SWITCHES:
        return f"--{name}" if value else f"--no_{name}"
    return f"--{name} {as_text(value)}"
