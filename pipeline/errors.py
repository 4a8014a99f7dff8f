"""The one exception that stands for bad input."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """A value or file from outside can't be used.

    The message is one line, complete by itself: what was received, what was expected, what to do. An argument that it
    speaks of stands in backquotes, as `limit` here, which a command shows as its flag. A script prints the line
    and exits with code 2; for a caller of the library it is a `ValueError`.
    """


@contextmanager
def refusing(kind: type[Exception], before: str, after: str = "") -> Iterator[None]:
    """Raise an `InputError` in place of an error of `kind`: its reason between `before` and `after`."""
    try:
        yield
    except kind as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or error
        raise InputError(f"{before}{reason}{after}") from error
