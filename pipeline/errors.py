"""The one exception that stands for bad input."""


class InputError(ValueError):
    """A value or file from outside can't be used.

    The message is one line, complete by itself: what was received, what was expected, what to do. An argument that it
    speaks of stands in backquotes, as in `limit`, which a command shows as its flag, --limit. A script prints the line
    and exits with code 2; for a caller of the library it is a `ValueError`.
    """
