"""Parse untrusted JSON: bounded in size, with finite numbers and unique keys."""

import json
import math
from os import PathLike

from pipeline.files.regular import read_regular

MAX_BYTES = 1 << 24
_MAX_VALUES = 1 << 19
_MAX_DIGITS = 18  # fits 64 bits


def parse_json(content: bytes) -> object:
    """Parse `content`.

    Raises:
        ValueError: it is longer than `MAX_BYTES`, holds too many values, is nested too deeply, or is not JSON; a number
            is not finite or has more than 18 digits; or an object repeats a key.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has {len(content):,} bytes; expected at most {MAX_BYTES:,}")
    # A value can take a hundred times its text in memory.
    values = sum(map(content.count, (b",", b"[", b"{")))
    if values > _MAX_VALUES:
        raise ValueError(f"it holds {values:,} values; expected at most {_MAX_VALUES:,}")
    try:
        return json.loads(
            content, parse_int=_integer, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_object
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(path: str | PathLike) -> object:
    """Read and parse the file `path`; raise `OSError` if it can't be read, `ValueError` as in `parse_json`."""
    return parse_json(read_regular(path, MAX_BYTES))


def is_number(value: object) -> bool:
    """Return whether `value` is an int or a float, not a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_count(value: object) -> bool:
    """Return whether `value` is an int of at least 0, not a bool."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(text.lstrip('-')):,} digits; expected at most {_MAX_DIGITS}")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds {text[:20]}, which is not a finite number")
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("an object repeats a key")
    return value
