"""The history of a run: its curves, arguments and data.

A history is a plain dictionary, the same in memory, in the JSON file and in a checkpoint:

    loss, accuracy, val_loss, val_accuracy   curves: lists with one number per epoch, null if not measured
    learning_rate, seconds                   more curves: the rate of the epoch's last step, the epoch's duration
    ...                                      curves of further metrics, and their val_ and ema_val_ variants
    run                                      the record of the run
        script, arguments          script, and the value of each flag
        dataset, data, classes     name of the data set, SHA-256 of its images, names of the classes
        precision                  Keras' dtype policy
        learning_rate_changes      each change by hand: [completed epochs, completed batches, new rate]
        steps                      batches per epoch
        sittings                   one entry per process: its identity, the epoch and batch it started after, backend,
                                   device, versions of libraries, commit of the code if known, and the changes of the
                                   learning rate that other processes requested: the answer to each request, by its id

Histories of format 1 lack `dataset`, `precision` and `seconds`; instead of `sittings` they have `versions` and `device`
of the last process.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from pipeline.errors import InputError, as_input_error
from pipeline.files.atomic import write_atomically
from pipeline.files.strictjson import is_count, is_number, read_json
from pipeline.utils.identity import is_identity

CURVES = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
"""The curves of every history; they may be empty."""
RESERVED = ("run", "learning_rate", "seconds")
"""Names that metrics can't have."""

PRECISIONS = ("float32", "mixed_bfloat16")
"""Keras dtype policies of a run; weights are float32 in both."""
MAX_CURVES = 256
_LARGEST = 1e30
MAX_METRIC_NAME = 80
_MAX_NAME, _MAX_TEXT = 100, 4096
MAX_CHANGES = 10_000
# Parts that identify a run, besides its arguments.
_IDENTITY = {"script", "data"}
# Curves that differ between identical runs.
_VARYING = {"seconds"}


def validation_accuracy(history: dict) -> list[float]:
    """Return the validation accuracy of each epoch, of the averaged weights if there are any; -inf if unknown."""
    accuracy = history.get("ema_val_accuracy") or history["val_accuracy"] or [None] * epochs_of(history)
    return [-math.inf if value is None else value for value in accuracy]


def validation_score(history: dict) -> list[float]:
    """Return a score for each epoch, higher is better: validation accuracy, else the negative validation loss."""
    if history.get("ema_val_accuracy") or history["val_accuracy"]:
        return validation_accuracy(history)
    loss = history.get("ema_val_loss") or history["val_loss"] or [None] * epochs_of(history)
    return [-math.inf if value is None else -value for value in loss]


def new_history(run: dict | None = None) -> dict:
    """Return a history without epochs."""
    return {curve: [] for curve in CURVES} | {"run": run or {}}


def epochs_of(history: dict) -> int:
    """Return the number of completed epochs."""
    return len(history["loss"])


def append_epoch(history: dict, logs: dict[str, float], learning_rate: float) -> None:
    """Add one epoch's `logs`, as Keras passes them to `on_epoch_end`; numbers that aren't finite become null.

    Raises:
        InputError: a loss is not finite: the run has diverged.
    """
    done = epochs_of(history)
    numbers = {curve: float(value) for curve, value in logs.items() if is_curve(curve, value)}
    for curve, value in numbers.items():
        if curve.endswith("loss") and not abs(value) < _LARGEST:  # also true for NaN
            raise diverged(f"{curve} is {value} after epoch {done + 1}")
    numbers["learning_rate"] = learning_rate
    for curve in dict.fromkeys((*history, *numbers)):
        if curve == "run" or (curve not in numbers and not history[curve]):
            continue
        value = numbers.get(curve, math.nan)
        history.setdefault(curve, []).extend([None] * (done - len(history.get(curve, ()))))
        history[curve].append(value if abs(value) < _LARGEST else None)


def is_curve(name: str, value: object) -> bool:
    """Return whether `value`, named `name` in an epoch's logs, is recorded as a curve."""
    return name not in ("run", "learning_rate") and isinstance(value, (int, float, np.number))


def diverged(where: str) -> InputError:
    """Return the error for a loss that is not finite."""
    return InputError(f"{where}: the run has diverged; restart, or resume an earlier checkpoint, with a smaller `lr`")


def is_ancestor_of(earlier: dict, later: dict, batch: int = 0, changeable: Collection[str] = ()) -> bool:
    """Return whether `later` continues `earlier`, which ends `batch` batches after its last epoch.

    True if both have the same script, data, learning rates up to that point, curves over the epochs of `earlier` except
    `seconds`, and arguments except `lr` and the `changeable` ones. If `earlier` has any epoch, parts that are missing
    in its run are not compared.
    """
    if epochs_of(earlier):
        run = earlier["run"]
        arguments = {"arguments": later["run"].get("arguments", {}) | run.get("arguments", {})}
        identity = {name: later["run"][name] for name in _IDENTITY & later["run"].keys()}
        earlier = earlier | {"run": identity | run | arguments}
    return lineage(earlier, changeable) in lineages(later, epochs_of(earlier), batch, changeable)


def lineage(history: dict, changeable: Collection[str] = ()) -> bytes:
    """Return a digest, 32 bytes, of everything that `is_ancestor_of` compares.

    A checkpoint's seal holds it, so that the run is known without reading the whole file.
    """
    run = history["run"]
    # After the first epoch, the curve records the rate.
    rate = None if epochs_of(history) else run.get("arguments", {}).get("lr")
    return _lineage(history, epochs_of(history), run.get("learning_rate_changes", []), rate, changeable)


def lineages(history: dict, epochs: int, batch: int, changeable: Collection[str] = ()) -> set[bytes]:
    """Return the possible values of `lineage` after `epochs` epochs and `batch` batches of the run of `history`.

    There are several if the learning rate was changed at that point, and none if the run hasn't reached it.
    """
    run = history["run"]
    changes = run.get("learning_rate_changes", [])
    # A rate chosen during validation takes effect in the next epoch.
    last = [epochs + 1, 0] if batch == run.get("steps") else [epochs, batch]
    before = [change for change in changes if change[:2] < [epochs, batch]]
    after = [change for change in changes if change[:2] > last]
    found = set()
    for end in range(len(before), len(changes) - len(after) + 1):
        # In the first epoch no curve records the initial rate.
        if epochs <= epochs_of(history) and (epochs or end == len(changes)):
            rate = None if epochs else run.get("arguments", {}).get("lr")
            found.add(_lineage(history, epochs, changes[:end], rate, changeable))
    return found


def _lineage(history: dict, epochs: int, changes: list, rate: float | None, changeable: Collection[str]) -> bytes:
    run = history["run"]
    identity = {name: run[name] for name in _IDENTITY & run.keys()}
    fixed = {name: value for name, value in run.get("arguments", {}).items() if name not in {*changeable, "lr"}}
    numbers = {curve: history[curve][:epochs] for curve in history.keys() - _VARYING - {"run"}}
    numbers = {curve: values for curve, values in numbers.items() if values}
    # 1 and 1.0 are the same value.
    parts = json.loads(json.dumps([identity, fixed, numbers, changes, rate]), parse_int=float)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()


def write_history(path: Path, history: dict) -> None:
    """Write `history` to `path` as JSON, atomically."""
    check_history(history)
    history = {curve: numbers for curve, numbers in history.items() if curve != "run"} | {"run": history["run"]}
    write_atomically(path, (json.dumps(history, indent=1, allow_nan=False) + "\n").encode())


def read_history(path: Path) -> dict:
    """Read the history in the JSON file `path`; raise `InputError` if it isn't one."""
    with (
        as_input_error(OSError, f"can't read history {path}: "),
        as_input_error(ValueError, f"{path} is not a history: "),
    ):
        return check_history(read_json(path))


def check_history(history: object) -> dict:
    """Return `history` if it is valid, else raise `InputError`."""
    if not isinstance(history, dict) or not isinstance(history.get("run"), dict):
        raise InputError(f"it is not an object with {', '.join(CURVES)} and run")
    _check_run(history["run"])
    if missing := set(CURVES) - history.keys():
        raise InputError(f"the history has no {min(missing)}")
    if len(history) > MAX_CURVES:
        raise InputError(f"the history has {len(history)} curves; expected at most {MAX_CURVES}")
    curves = {curve: numbers for curve, numbers in history.items() if curve != "run"}
    for curve, numbers in curves.items():
        if not _is_text(curve) or len(curve) > _MAX_NAME:
            raise InputError(f"the history has a curve with the invalid name {curve!a:.100}")
        if not isinstance(numbers, list) or not all(_is_drawable(number) for number in numbers):
            raise InputError(f"the history's {curve} is not a list of finite numbers and nulls")
    for curve, numbers in curves.items():
        # Validation and accuracy are optional.
        if len(numbers) != len(history["loss"]) and (numbers or curve == "learning_rate"):
            raise InputError(f"the history has {len(numbers)} epochs of {curve} and {len(history['loss'])} of loss")
    return history


def _check_run(run: dict) -> None:
    for name, value in run.items():
        if name not in _RUN:
            raise InputError(f"the history's run has an unknown part {name!a:.100}")
        if not _RUN[name](value):
            raise InputError(f"the history's run has an invalid {name}, {value!a:.100}")


def _is_drawable(value: object) -> bool:
    return value is None or (is_number(value) and abs(value) < _LARGEST)


def _all(of: type, fits: Callable[[object], bool]) -> Callable[[object], bool]:
    """Return a check for a list or dictionary whose values all fit."""
    return lambda value: isinstance(value, of) and all(map(fits, value.values() if of is dict else value))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_word(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\w{1,100}", value, re.ASCII) is not None


def are_values(value: object) -> bool:
    """Return whether `value` maps names to None, numbers, short texts, or lists of these."""
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
    if not isinstance(value, dict) or not _SITTING.keys() - _LATER <= value.keys() <= _SITTING.keys():
        return False
    return all(_SITTING[name](part) for name, part in value.items())


def _are_requests(value: object) -> bool:
    return _all(dict, _is_text)(value) and all(map(is_identity, value)) and len(value) <= MAX_CHANGES


# Parts of a sitting and of a run, each with a check of its value.
_SITTING: dict[str, Callable[[object], bool]] = {
    "epoch": is_count,
    "batch": is_count,
    "backend": _is_word,
    "device": _is_text,
    "versions": _all(dict, _is_text),
    "commit": lambda value: value is None or _is_text(value),
    "id": is_identity,
    "requests": _are_requests,
}
# Parts that sittings of earlier versions lack.
_LATER = {"id", "requests"}
_RUN: dict[str, Callable[[object], bool]] = {
    "script": _is_word,
    "dataset": _is_word,
    "data": lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None,
    "arguments": are_values,
    "learning_rate_changes": lambda value: _all(list, _is_change)(value) and len(value) <= MAX_CHANGES,
    "classes": _all(list, _is_text),
    "steps": lambda value: is_count(value) and value > 0,
    "precision": lambda value: value in PRECISIONS,
    "sittings": _all(list, _is_sitting),
    # In format 1 only.
    "versions": _all(dict, _is_text),
    "device": _is_text,
}
