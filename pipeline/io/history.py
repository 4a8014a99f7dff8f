"""The record of a run: what each epoch reached, and under which arguments.

A history is a plain dictionary, the same in memory, in the JSON file and in a checkpoint:

    loss, accuracy, val_loss, val_accuracy, learning_rate   lists, one number an epoch
    run                                                     what the run is
        script, arguments          the command, and the values it was resolved to
        data                       SHA-256 of the data set
        learning_rate_changes      [epoch, batch, value], made by hand after so many epochs and batches
        versions, device           what it ran on
"""

import json
import math
from pathlib import Path

from pipeline.errors import InputError
from pipeline.io.atomic import write_atomically

CURVES = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


def new_history(run: dict | None = None) -> dict:
    """A history of no epoch yet."""
    return {curve: [] for curve in CURVES} | {"run": run or {}}


def epochs_of(history: dict) -> int:
    """The number of completed epochs."""
    return len(history["loss"])


def append_epoch(history: dict, logs: dict[str, float], learning_rate: float) -> None:
    """Add one epoch's `logs`, as Keras hands them to `on_epoch_end`.

    Raises:
        InputError: a number is not finite: the run has diverged, and nothing of this epoch is worth keeping.
    """
    for curve in CURVES[:-1]:
        if curve in logs and not math.isfinite(logs[curve]):
            raise InputError(
                f"{curve} is {logs[curve]} after epoch {epochs_of(history) + 1}: the run has diverged; start again, "
                "or go on from an earlier checkpoint, with a smaller --lr"
            )
    for curve in CURVES[:-1]:
        if curve in logs:
            history[curve].append(float(logs[curve]))
    history["learning_rate"].append(learning_rate)


def is_start_of(earlier: dict, later: dict) -> bool:
    """Whether `later` goes on from `earlier`: the same numbers in each epoch that `earlier` has."""
    return all(earlier[curve] == later[curve][: len(earlier[curve])] for curve in CURVES)


def write_history(path: Path, history: dict) -> None:
    """Write `history` to `path` as JSON, atomically."""
    write_atomically(path, (json.dumps(history, indent=1, allow_nan=False) + "\n").encode())


def read_history(path: Path) -> dict:
    """The history in the JSON file `path`; `InputError` if it is none."""
    try:
        return check_history(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a history: {error}") from error


def check_history(history: object) -> dict:
    """`history` itself if it has the form above; `InputError` if not."""
    if not isinstance(history, dict) or not isinstance(history.get("run"), dict):
        raise InputError("a history is an object with the object run")
    for curve in CURVES:
        numbers = history.get(curve)
        if not isinstance(numbers, list) or not all(_is_number(number) for number in numbers):
            raise InputError(f"the history's {curve} is not a list of finite numbers")
    return history


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
