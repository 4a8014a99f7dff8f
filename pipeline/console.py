"""How a command meets its user on the terminal: no chatter from libraries that load, progress bars, a question."""

import os
import select
import shutil
import signal
import sys
import tempfile
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline import command, flags
from pipeline.errors import InputError

BACKENDS = ("tensorflow", "jax")


@contextmanager
def quiet_start() -> Iterator[None]:
    """Hold back what native libraries write to standard error while they are imported; show it if the import fails.

    TensorFlow's shared objects log before any of their settings can be read, past `sys.stderr`, so the file
    descriptor itself is redirected. A backend that isn't installed or isn't supported becomes an `InputError`.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend not in BACKENDS:
        raise InputError(f"KERAS_BACKEND is {backend}; expected {' or '.join(BACKENDS)}")
    sys.stderr.flush()
    kept = os.dup(2)

    def end(number: int, frame: FrameType | None) -> None:
        # An exception in the middle of a native library's start can come out as any other, or not at all.
        command.end_at_once(number, kept)

    handlers = command.handle_stops(end)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            yield
        except ModuleNotFoundError as error:
            raise InputError(
                f"{error}; install requirements.txt, or requirements-jax.txt and set KERAS_BACKEND=jax"
            ) from error
        except Exception:
            chatter.seek(0)
            with open(kept, "wb", closefd=False) as stderr:
                shutil.copyfileobj(chatter, stderr)
            raise
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def progress(description: str, total: float, unit: str) -> Iterator[Callable[[float], None]]:
    """A bar with rate and time left on a terminal, nothing elsewhere; yields what to call with each further amount."""
    if not sys.stderr.isatty():
        yield lambda amount: None
        return
    from rich import progress as bars
    from rich.console import Console
    from rich.table import Column

    class Rate(bars.ProgressColumn):
        def render(self, task: bars.Task) -> str:
            return f"{task.completed:,.0f}/{task.total:,.0f} {unit}, {task.speed or 0:,.0f}/s"

    rate = Rate(table_column=Column(no_wrap=True))
    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(bar_width=20),
        rate,
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(command.printable(description), total=total)
        yield lambda amount: bar.advance(task, amount)


def ask(message: str, given_up: Callable[[], bool]) -> str | float:
    """Show `message` and ask on the terminal how to go on: "go on", "stop", or a learning rate to go on with.

    A terminal that is closed, or `given_up` that becomes true while nobody answers, means "stop".
    """
    print(f"{message}\n  c: go on   RATE, as 0.01: go on with another learning rate   s: save and stop", flush=True)
    while True:
        print("c, RATE or s> ", end="", flush=True)
        # A blocking read would miss a signal that comes just before it.
        while not select.select([sys.stdin], [], [], 0.1)[0]:
            if given_up():
                return "stop"
        try:
            line = sys.stdin.readline()
        except OSError:  # a terminal that has closed
            line = ""
        answer = line.strip().lower()
        if answer == "s" or not line:
            return "stop"
        if answer in ("c", ""):
            return "go on"
        try:
            return flags.positive(answer)
        except ArgumentTypeError:
            print(f"{answer!a} is none of c, s and a learning rate above 0")
