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

from pipeline.cli import backend, command, flags
from pipeline.errors import InputError
from pipeline.utils.signals import STOPS, handle_stops
from pipeline.utils.text import printable


@contextmanager
def quiet_start() -> Iterator[None]:
    """Hold back what native libraries write to standard error while they are imported; show it if the import fails.

    TensorFlow's shared objects log before any of their settings can be read, past `sys.stderr`, so the file
    descriptor itself is redirected. A library that ends the process, as TensorFlow does on a processor that it wasn't
    built for, says why there too. A backend that isn't installed or isn't supported becomes an `InputError`.
    """
    chosen = backend.choose_backend()
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        # Where the backend is loaded already nothing ends the process; a fork beside its threads would be a risk.
        survived = (lambda: None) if chosen in sys.modules else _show_if_process_dies(chatter.fileno())

        def end(number: int, frame: FrameType | None) -> None:
            # An exception in the middle of a native library's start can come out as any other, or not at all.
            survived()
            command.end_at_once(number, kept)

        handlers = handle_stops(end)
        os.dup2(chatter.fileno(), 2)
        try:
            with backend.loading_keras(chosen):
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
            survived()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            os.dup2(kept, 2)
            os.close(kept)


def _show_if_process_dies(chatter: int) -> Callable[[], None]:
    """Have another process copy the file `chatter` to standard error if this one dies before it calls what is returned.

    A process that a library aborts runs no more Python.
    """
    ours, theirs = os.pipe()
    # Ctrl+C, or what a batch system sends to all processes, is for the parent to answer.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    watcher = os.fork()
    if not watcher:
        try:
            os.close(theirs)
            if not os.read(ours, 1):
                os.write(2, os.pread(chatter, 1 << 16, 0))
        finally:
            os._exit(0)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.close(ours)

    def survived() -> None:
        nonlocal watcher
        process, watcher = watcher, 0
        if process:
            os.write(theirs, b"1")
            os.close(theirs)
            os.waitpid(process, 0)

    return survived


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
        task = bar.add_task(printable(description), total=total)
        yield lambda amount: bar.advance(task, amount)


def ask(message: str, given_up: Callable[[], bool]) -> str | float:
    """Show `message` and ask on the terminal how to go on: "go on", "stop", or a learning rate to go on with.

    A terminal that is closed, or `given_up` that becomes true while nobody answers, means "stop".
    """
    choices = "c: go on   RATE, as 0.01: go on with another learning rate   s or Ctrl+C: save and stop"
    print(f"{message}\n  {choices}", flush=True)
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
