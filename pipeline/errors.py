"""The exception for bad input."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """An argument or a file can't be used.

    The message is one line: what was received, what was expected, what to do. Names of arguments are in backquotes,
    such as `limit`; commands show them as flags. Scripts print the line and exit with code 2.
    """


@contextmanager
def as_input_error(error_type: type[Exception], before: str, after: str = "") -> Iterator[None]:
    """Convert an error of `error_type` to an `InputError` with the message `before`, the error's reason, `after`."""
    try:
        yield
    except error_type as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or error
        raise InputError(f"{before}{reason}{after}") from error
