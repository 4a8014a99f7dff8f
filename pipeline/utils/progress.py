"""What a long task is given to show its progress."""

from collections.abc import Callable
from contextlib import AbstractContextManager

Progress = Callable[[str, float, str], AbstractContextManager[Callable[[float], None]]]
"""Called with a description, a total and its unit; a context manager that yields a function for further amounts."""
