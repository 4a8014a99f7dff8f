"""A command from its first moment to its last: signals, streams, errors, exit codes. Loads next to nothing."""

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


def run(main: Callable[[], None], *, tidy: bool = False) -> None:
    """Run a script's `main` and end the process. What a script imports inside `main` is covered by the following too.

    Exit codes: 0 done, 1 the disk or system failed, 2 bad input, 128 and its number for a signal that asked to end (130
    Ctrl+C, 143 SIGTERM), 141 the reader of the output has gone; never a traceback for these. Any other exception is a
    defect and keeps its traceback.

    Args:
        tidy: on the first signal that asks to end remove what is half-written, and then end; without it, where there is
            nothing to remove, end at once.
    """
    _open_streams()
    reports = logging.getLogger("pipeline")
    reports.handlers = [Lines()]
    reports.setLevel(logging.INFO)
    # A plot goes to a file: neither a window nor a notebook, which names itself to its children so, has a part in it.
    os.environ["MPLBACKEND"] = "agg"
    asked = []

    def unwind(number: int, frame: FrameType | None) -> None:
        # One more doesn't disturb what the first has set going.
        handle_stops(lambda number, frame: os._exit(128 + number))
        asked.append(number)
        raise KeyboardInterrupt

    handle_stops(unwind if tidy else lambda number, frame: end_at_once(number))
    code = 0
    try:
        code = _call(main)
        # What is left is the interpreter's own end.
        handle_stops(signal.SIG_IGN)
    except KeyboardInterrupt:
        handle_stops(signal.SIG_IGN)
    if asked:  # also where the interpreter dropped the exception, as it does in a destructor
        code = 128 + asked[0]
        print(f"\n{stopped_by(asked[0])}", file=sys.stderr)
    sys.stdout.flush()
    lost = sys.stdout.lost or sys.stderr.lost
    if lost and not code:
        code = 128 + signal.SIGPIPE if isinstance(lost, BrokenPipeError) else fail(f"can't print: {lost.strerror}", 1)
    sys.exit(code)


def fail(message: str, code: int) -> int:
    """Print `message` as the program's one line of error and return `code`."""
    print(f"{os.path.basename(sys.argv[0])}: error: {printable(message)}", file=sys.stderr)
    return code


def stopped_by(number: int) -> str:
    """What a process says at its end that signal `number` ends."""
    return f"stopped by {'Ctrl+C' if number == signal.SIGINT else signal.Signals(number).name}"


def end_at_once(number: int, descriptor: int = 2) -> None:
    """End the process as signal `number` asks, and say so on `descriptor`; for where there is nothing to save."""
    write_from_handler(f"\n{stopped_by(number)}\n", descriptor)
    os._exit(128 + number)


class Lines(logging.Handler):
    """Prints what the library reports, a line each: to standard output, from warnings on to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        print(printable(record.getMessage()), file=stream, flush=True)


class Stream:
    """A text stream that outlives its reader, or the room on its disk: what can't be written is lost.

    `lost` is the last error; a run that prints to a full disk or a dead terminal goes on, and tells at its end.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
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
    """The exit code of `main`."""
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
    """Give the process those of its three streams that it was started without, and those to print on no way to fail."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # of a name that the terminal's encoding lacks
    sys.stdout, sys.stderr = Stream(sys.stdout), Stream(sys.stderr)
