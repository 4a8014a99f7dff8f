"""The one exception that stands for bad input."""


class InputError(ValueError):
    """A value or file from outside can't be used.

    The message is one line, complete by itself: what was received, what was expected, what to do. A script shows it
    and exits with code 2; for a caller of the library it is a `ValueError`.
    """
