"""The record of a run: what each epoch reached, and under which arguments.

A history is a plain dictionary, the same in memory, in the JSON file and in a checkpoint:

    loss, accuracy, val_loss, val_accuracy   curves: a list each, one number an epoch, null where it wasn't measured
    learning_rate, seconds                   curves too: the rate of the epoch's last step, and how long the epoch took
    ...                                      a curve for each further metric, and its val_ and ema_val_ forms
    run                                      what the run is
        script, arguments          the command, and the values it was resolved to
        dataset, data, classes     name of the data set, the SHA-256 of its images, names of the classes
        precision                  Keras' dtype policy
        learning_rate_changes      [epoch, batch, value], made by hand after so many epochs and batches
        steps                      batches in an epoch
        sittings                   a process each: the epoch and batch it began after, backend, device, versions of
                                   libraries, and commit of the code where it is known

Histories of format 1 have no `dataset`, `precision` and `seconds`, and in place of `sittings` the last one's `versions`
and `device`.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from pipeline.errors import InputError, refusing
from pipeline.files.atomic import write_atomically
from pipeline.files.strictjson import is_count, is_number, read_json

CURVES = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
"""The curves that every history has, though they may be empty."""
RESERVED = ("run", "learning_rate", "seconds")
"""Names that a history uses itself, so that no metric can have them."""

PRECISIONS = ("float32", "mixed_bfloat16")
"""Keras' dtype policies that a run may compute in; weights are float32 in either."""
MAX_CURVES = 256
_LARGEST = 1e30
MAX_METRIC_NAME = 80
_MAX_NAME, _MAX_TEXT, _MAX_CHANGES = 100, 4096, 10_000
# What names a run beside its arguments.
_NAMED = {"script", "data"}
# Differ from one process to the next in the same run.
_OF_PROCESS = {"seconds"}


def validation_accuracy(history: dict) -> list[float]:
    """The validation accuracy of each epoch, of the averaged weights if there are any; -inf where it is unknown."""
    accuracy = history.get("ema_val_accuracy") or history["val_accuracy"] or [None] * epochs_of(history)
    return [-math.inf if value is None else value for value in accuracy]


def validation_score(history: dict) -> list[float]:
    """What the epochs are compared by, more is better: validation accuracy, or the loss of a run that measures none."""
    if history.get("ema_val_accuracy") or history["val_accuracy"]:
        return validation_accuracy(history)
    loss = history.get("ema_val_loss") or history["val_loss"] or [None] * epochs_of(history)
    return [-math.inf if value is None else -value for value in loss]


def new_history(run: dict | None = None) -> dict:
    """A history of no epoch yet."""
    return {curve: [] for curve in CURVES} | {"run": run or {}}


def epochs_of(history: dict) -> int:
    """The number of completed epochs."""
    return len(history["loss"])


def append_epoch(history: dict, logs: dict[str, float], learning_rate: float) -> None:
    """Add one epoch's `logs`, as Keras hands them to `on_epoch_end`; a number that isn't finite is stored as null.

    Raises:
        InputError: a loss is not finite: the run has diverged, and nothing of this epoch is worth keeping.
    """
    done = epochs_of(history)
    numbers = {curve: float(value) for curve, value in logs.items() if is_curve(curve, value)}
    for curve, value in numbers.items():
        if curve.endswith("loss") and not abs(value) < _LARGEST:  # NaN is not either
            raise diverged(f"{curve} is {value} after epoch {done + 1}")
    numbers["learning_rate"] = learning_rate
    for curve in dict.fromkeys((*history, *numbers)):
        if curve == "run" or (curve not in numbers and not history[curve]):
            continue
        value = numbers.get(curve, math.nan)
        history.setdefault(curve, []).extend([None] * (done - len(history.get(curve, ()))))
        history[curve].append(value if abs(value) < _LARGEST else None)


def is_curve(name: str, value: object) -> bool:
    """Return whether `value` of an epoch's logs is a number that a history keeps, as that of a metric."""
    return name not in ("run", "learning_rate") and isinstance(value, (int, float, np.number))


def diverged(where: str) -> InputError:
    """The error for a loss that is not finite."""
    return InputError(f"{where}: the run has diverged; start again, or from an earlier checkpoint, with a smaller `lr`")


def is_start_of(earlier: dict, later: dict, batch: int = 0, changeable: Collection[str] = ()) -> bool:
    """Return whether `later` goes on from `earlier`, which was left `batch` batches after its last epoch.

    Both are of one run: the same script, data and arguments but for those that are `changeable` on the way, the same
    rates up to there, and the same numbers in each epoch that `earlier` has. If it has any, what it doesn't say of its
    run is not compared.
    """
    if epochs_of(earlier):
        run = earlier["run"]
        told = {"arguments": later["run"].get("arguments", {}) | run.get("arguments", {})}
        earlier = earlier | {"run": {name: later["run"][name] for name in _NAMED & later["run"].keys()} | run | told}
    return lineage(earlier, changeable) in lineages(later, epochs_of(earlier), batch, changeable)


def lineage(history: dict, changeable: Collection[str] = ()) -> bytes:
    """A digest (32 bytes) of all that `is_start_of` compares: the run, its curves and its changes of the rate.

    A checkpoint's seal holds it, so that its run is known without reading the whole file.
    """
    run = history["run"]
    # A rate that has trained an epoch is on its curve.
    rate = None if epochs_of(history) else run.get("arguments", {}).get("lr")
    return _lineage(history, epochs_of(history), run.get("learning_rate_changes", []), rate, changeable)


def lineages(history: dict, epochs: int, batch: int, changeable: Collection[str] = ()) -> set[bytes]:
    """The values `lineage` may have had after `epochs` and `batch` on the way to `history`; none if it isn't there yet.

    There may be more than one: where the learning rate was changed just then, that is before or after.
    """
    run = history["run"]
    changes = run.get("learning_rate_changes", [])
    # A rate chosen while an epoch is validated is that of the one after.
    last = [epochs + 1, 0] if batch == run.get("steps") else [epochs, batch]
    before = [change for change in changes if change[:2] < [epochs, batch]]
    after = [change for change in changes if change[:2] > last]
    found = set()
    for end in range(len(before), len(changes) - len(after) + 1):
        # Before the end of the first epoch no curve says at which rate the run began.
        if epochs <= epochs_of(history) and (epochs or end == len(changes)):
            rate = None if epochs else run.get("arguments", {}).get("lr")
            found.add(_lineage(history, epochs, changes[:end], rate, changeable))
    return found


def _lineage(history: dict, epochs: int, changes: list, rate: float | None, changeable: Collection[str]) -> bytes:
    run = history["run"]
    told = {name: run[name] for name in _NAMED & run.keys()}
    fixed = {name: value for name, value in run.get("arguments", {}).items() if name not in {*changeable, "lr"}}
    numbers = {curve: history[curve][:epochs] for curve in history.keys() - _OF_PROCESS - {"run"}}
    numbers = {curve: values for curve, values in numbers.items() if values}
    # Each whole number as the decimal that may stand for it elsewhere.
    parts = json.loads(json.dumps([told, fixed, numbers, changes, rate]), parse_int=float)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()


def write_history(path: Path, history: dict) -> None:
    """Write `history` to `path` as JSON, atomically."""
    check_history(history)
    history = {curve: numbers for curve, numbers in history.items() if curve != "run"} | {"run": history["run"]}
    write_atomically(path, (json.dumps(history, indent=1, allow_nan=False) + "\n").encode())


def read_history(path: Path) -> dict:
    """The history in the JSON file `path`; `InputError` if it is none."""
    with refusing(OSError, f"can't read history {path}: "), refusing(ValueError, f"{path} is not a history: "):
        return check_history(read_json(path))


def check_history(history: object) -> dict:
    """`history` itself if it has the form above; `InputError` if not."""
    if not isinstance(history, dict) or not isinstance(history.get("run"), dict):
        raise InputError(f"a history is an object with {', '.join(CURVES)} and run")
    _check_run(history["run"])
    if missing := set(CURVES) - history.keys():
        raise InputError(f"the history has no {min(missing)}")
    if len(history) > MAX_CURVES:
        raise InputError(f"the history has {len(history)} curves; expected at most {MAX_CURVES}")
    curves = {curve: numbers for curve, numbers in history.items() if curve != "run"}
    for curve, numbers in curves.items():
        if not _is_text(curve) or len(curve) > _MAX_NAME:
            raise InputError(f"the history has a curve {curve!a:.100}, which no metric is called")
        if not isinstance(numbers, list) or not all(_is_drawable(number) for number in numbers):
            raise InputError(f"the history's {curve} is not a list of numbers that can be drawn")
    for curve, numbers in curves.items():
        # A run without validation, or accuracy, has none of that.
        if len(numbers) != len(history["loss"]) and (numbers or curve == "learning_rate"):
            raise InputError(f"the history has {len(numbers)} epochs of {curve} and {len(history['loss'])} of loss")
    return history


def _check_run(run: dict) -> None:
    for name, value in run.items():
        if name not in _RUN:
            raise InputError(f"the history's run has an unknown part {name!a:.100}")
        if not _RUN[name](value):
            raise InputError(f"the history's run has {name} {value!a:.100}, which is not possible")


def _is_drawable(value: object) -> bool:
    return value is None or (is_number(value) and abs(value) < _LARGEST)


def _all(of: type, fits: Callable[[object], bool]) -> Callable[[object], bool]:
    """A check that a value is a list, or a dictionary, and that each of its values fits."""
    return lambda value: isinstance(value, of) and all(map(fits, value.values() if of is dict else value))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_word(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\w{1,100}", value, re.ASCII) is not None


def are_values(value: object) -> bool:
    """Return whether `value` maps names to what arguments may be: None, numbers, short texts, or lists of them."""
    return isinstance(value, dict) and all(
        name.isidentifier() and all(map(_is_value, inner if isinstance(inner, (list, tuple)) else [inner]))
        for name, inner in value.items()
    )


def _is_value(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float)) or (_is_text(value) and len(value) <= _MAX_TEXT)


def _is_change(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and is_count(value[0])
        and is_count(value[1])
        and is_number(value[2])
        and value[2] > 0
    )


def _is_sitting(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == _SITTING.keys() and all(_SITTING[k](v) for k, v in value.items())


# The parts of a sitting, and of a history's run, and what each may be.
_SITTING: dict[str, Callable[[object], bool]] = {
    "epoch": is_count,
    "batch": is_count,
    "backend": _is_word,
    "device": _is_text,
    "versions": _all(dict, _is_text),
    "commit": lambda value: value is None or _is_text(value),
}
_RUN: dict[str, Callable[[object], bool]] = {
    "script": _is_word,
    "dataset": _is_word,
    "data": lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None,
    "arguments": are_values,
    "learning_rate_changes": lambda value: _all(list, _is_change)(value) and len(value) <= _MAX_CHANGES,
    "classes": _all(list, _is_text),
    "steps": lambda value: is_count(value) and value > 0,
    "precision": lambda value: value in PRECISIONS,
    "sittings": _all(list, _is_sitting),
    # Of format 1.
    "versions": _all(dict, _is_text),
    "device": _is_text,
}
