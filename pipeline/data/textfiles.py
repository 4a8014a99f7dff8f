"""Text files of data sets: tables with a line per entry, and the mean colour of the training images."""

import json
import unicodedata
from pathlib import Path

from pipeline.errors import InputError, as_input_error
from pipeline.files.atomic import write_atomically
from pipeline.files.regular import read_regular
from pipeline.files.strictjson import is_number, read_json

CHANNELS = ("R", "G", "B")

_MAX_TABLE = 1 << 23  # bytes; the largest tables of Tiny ImageNet and ImageNet have 3 million


def lines(path: Path) -> list[str]:
    """Read the lines of a UTF-8 text file.

    Raises:
        InputError: the file is missing, is too large, or isn't text.
    """
    with as_input_error(OSError, f"can't read {path}: "):
        content = read_regular(path, _MAX_TABLE)
    return text_lines(content, path)


def text_lines(content: bytes, name: str | Path) -> list[str]:
    """Return the lines of UTF-8 text; raise `InputError`, with `name` as the file, if it isn't text."""
    with as_input_error(UnicodeDecodeError, f"{name} is not a text file: "):
        return nfc(content.decode("utf-8-sig")).splitlines()


def nfc(text: str) -> str:
    """Return `text` in one Unicode form: file systems return accented letters in different forms."""
    return unicodedata.normalize("NFC", text)


def is_name(text: str) -> bool:
    """Return whether `text` is a valid file name without blanks that is safe to print."""
    return text.isprintable() and not set(text) & set(" /\\") and text not in ("", ".", "..")


def write_mean(path: Path, mean: dict[str, float], deviation: dict[str, float] | None = None) -> None:
    """Write the mean of each channel R, G and B, 0 to 255, and optionally their standard deviation, as JSON."""
    content = mean if deviation is None else mean | {"deviation": deviation}
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def read_mean(path: Path) -> tuple[dict[str, float], dict[str, float] | None]:
    """Read the mean of each channel R, G and B, 0 to 255, and their standard deviation, None if the file has none.

    Raises:
        InputError: the file is missing or invalid.
    """
    with (
        as_input_error(OSError, f"can't read mean {path}: ", "; build the data set first"),
        as_input_error(ValueError, f"mean {path} is not JSON: ", "; build the data set again"),
    ):
        mean = read_json(path)
    deviation = mean.pop("deviation", None) if isinstance(mean, dict) else None
    if not _is_colour(mean) or not (deviation is None or _is_colour(deviation)):
        raise InputError(f"mean {path} doesn't hold R, G and B from 0 to 255; build the data set again")
    return mean, deviation


def _is_colour(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == set(CHANNELS)
        and all(is_number(channel) and 0 <= channel <= 255 for channel in value.values())
    )
