"""Run a command: signals, streams, errors, exit codes. Imports little, so that it starts at once."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from io import TextIOWrapper
from types import FrameType
from typing import TextIO

from pipeline.errors import InputError
from pipeline.utils.signals import handle_stops, write_from_handler
from pipeline.utils.text import printable

SYSTEMS = ("linux", "darwin")
"""Supported values of `sys.platform`: file locks, signals and positioned reads need POSIX."""


def run(main: Callable[[], None], *, tidy: bool = False) -> None:
    """Run a script's `main`, including the imports inside it, and exit.

    Exit codes: 0 done, 1 the disk or system failed, 2 bad input, 141 the reader of the output is gone, 128 plus the
    number of a signal (130 for Ctrl+C, 143 for SIGTERM). None of these prints a traceback. Any other exception is a bug
    and prints one.

    Args:
        tidy: on the first signal, unwind so that half-written files are removed; if False, exit at once.
    """
    _open_streams()
    if not sys.platform.startswith(SYSTEMS):
        sys.exit(fail(f"{sys.platform} is not supported, only Linux and macOS; on Windows use WSL", 2))
    reports = logging.getLogger("pipeline")
    reports.handlers = [LineHandler()]
    reports.setLevel(logging.INFO)
    # Plots go to files. Notebooks set another backend for their subprocesses.
    os.environ["MPLBACKEND"] = "agg"
    asked = []

    def unwind(number: int, frame: FrameType | None) -> None:
        # A second signal must not interrupt the clean-up.
        handle_stops(lambda number, frame: os._exit(128 + number))
        asked.append(number)
        raise KeyboardInterrupt

    handle_stops(unwind if tidy else lambda number, frame: end_at_once(number))
    code = 0
    try:
        code = _call(main)
        # Only the interpreter's shutdown is left.
        handle_stops(signal.SIG_IGN)
    except BaseException:
        # An import that is interrupted may raise another exception.
        if not asked:
            raise
        handle_stops(signal.SIG_IGN)
    if asked:  # even if the interpreter dropped the exception, as in a destructor
        code = 128 + asked[0]
        print(f"\n{stopped_by(asked[0])}", file=sys.stderr)
    sys.stdout.flush()
    lost = sys.stdout.lost or sys.stderr.lost
    if lost and not code:
        code = 128 + signal.SIGPIPE if isinstance(lost, BrokenPipeError) else fail(f"can't print: {lost.strerror}", 1)
    sys.exit(code)


def fail(message: str, code: int) -> int:
    """Print `message` as an error line and return `code`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    is_module = spec is not None and spec.name.startswith("pipeline.")
    name = f"python -m {spec.name}" if is_module else os.path.basename(sys.argv[0])
    print(f"{name}: error: {printable(message)}", file=sys.stderr)
    return code


def stopped_by(number: int) -> str:
    """Return the message of a process that signal `number` stops."""
    return f"stopped by {'Ctrl+C' if number == signal.SIGINT else signal.Signals(number).name}"


def end_at_once(number: int, descriptor: int = 2) -> None:
    """Report signal `number` on `descriptor`, and exit at once. Use it if there is nothing to save."""
    write_from_handler(f"\n{stopped_by(number)}\n", descriptor)
    os._exit(128 + number)


class LineHandler(logging.Handler):
    """Print each record of the library's loggers as a line: warnings and errors to stderr, others to stdout."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        if getattr(sys.stdout, "is_in_bar", False):
            print()
        print(printable(record.getMessage()), file=stream, flush=True)


class LossyStream:
    """A text stream that drops what it can't write, and keeps the last error in `lost`.

    A run that prints to a full disk or a closed terminal continues, and reports the error when it ends. `is_in_bar` is
    True while the last line is an unfinished progress bar of Keras.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None
        self.is_in_bar = False

    def write(self, text: str) -> int:
        self.is_in_bar = "\r" in text and not text.endswith("\n")
        try:
            return self._stream.write(text)
        except OSError as error:
            self.lost = error
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self.lost = error

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _call(main: Callable[[], None]) -> int:
    """Call `main` and return the exit code."""
    try:
        main()
    except InputError as error:
        from pipeline.cli.arguments import with_flags

        return fail(with_flags(str(error)), 2)
    except OSError as error:
        return fail(str(error), 1)
    except SystemExit as end:
        return end.code or 0
    return 0


def _open_streams() -> None:
    """Open standard streams that are missing, and wrap the output streams so that printing never raises."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, which is this one
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for names that the terminal's encoding lacks
    sys.stdout, sys.stderr = LossyStream(sys.stdout), LossyStream(sys.stderr)
