"""The terminal: silent imports, progress bars, the menu after Ctrl+C."""

import os
import select
import shutil
import signal
import sys
import tempfile
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.cli import backend, command, flags
from pipeline.errors import InputError
from pipeline.utils.signals import STOPS, handle_stops
from pipeline.utils.text import printable

# Seconds between two lines of progress.
_LINE_SECONDS = 60


@contextmanager
def quiet_start() -> Iterator[None]:
    """Hide what native libraries write to stderr while they are imported; show it if the import fails.

    TensorFlow also writes there before it aborts, as on a processor that it wasn't built for.

    Raises:
        InputError: the backend isn't installed or isn't supported.
    """
    chosen = backend.choose_backend()
    with hidden_stderr() as (chatter, stderr):
        # A backend that is already loaded won't abort, and forking a process with threads is unsafe.
        survived = (lambda: None) if chosen in sys.modules else _show_if_process_dies(chatter, stderr)

        def end(number: int, frame: FrameType | None) -> None:
            # An exception raised inside a native import may surface as another one, or not at all.
            survived()
            command.end_at_once(number, stderr)

        handlers = handle_stops(end)
        try:
            with backend.loading_keras(chosen):
                yield
        except ModuleNotFoundError as error:
            raise InputError(
                f"{error}; install requirements.txt, or requirements-jax.txt and set KERAS_BACKEND=jax"
            ) from error
        finally:
            survived()
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextmanager
def hidden_stderr() -> Iterator[tuple[int, int]]:
    """Hide what libraries write to stderr; show it if an exception that is not an `InputError` leaves the context.

    TensorFlow's shared objects log before their settings can be read, and bypass `sys.stderr`, so the file descriptor
    itself is redirected. Yields the descriptor of the file that it leads to, and one of the real stderr.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            yield chatter.fileno(), kept
        except Exception as error:
            sys.stderr.flush()
            if not isinstance(error, InputError):
                chatter.seek(0)
                with open(kept, "wb", closefd=False) as stderr:
                    shutil.copyfileobj(chatter, stderr)
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def _show_if_process_dies(chatter: int, stderr: int) -> Callable[[], None]:
    """Fork a process that copies the file `chatter` to `stderr` if this process dies; return a function that ends it.

    Both are descriptors. This process can't do that itself: if a library aborts it, it runs no more Python code.
    """
    ours, theirs = os.pipe()
    # Ctrl+C and a batch system's signals reach all processes; the parent handles them.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    watcher = os.fork()
    if not watcher:
        try:
            os.close(theirs)
            if not os.read(ours, 1):
                os.write(stderr, os.pread(chatter, 1 << 16, 0))
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
    """Show a progress bar on a terminal, elsewhere a line a minute; yield a function that advances it by an amount."""
    if not sys.stderr.isatty():
        yield _progress_lines(description, total, unit)
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
        bars.BarColumn(bar_width=16),
        rate,
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(printable(description), total=total)
        yield lambda amount: bar.advance(task, amount)


def _progress_lines(description: str, total: float, unit: str) -> Callable[[float], None]:
    """Return a function that takes amounts, and prints a line to stderr once a minute, as for a batch job's log."""
    start = last = time.monotonic()
    done = 0.0

    def advance(amount: float) -> None:
        nonlocal last, done
        done += amount
        now = time.monotonic()
        if now - last >= _LINE_SECONDS and 0 < done < total:
            last = now
            rate = done / (now - start)
            left = f"{(total - done) / rate / 60:,.0f} minutes left"
            about = f"{done:,.0f}/{total:,.0f} {unit}, {rate:,.0f}/s, {left}"
            print(printable(f"{description}: {about}"), file=sys.stderr, flush=True)

    return advance


def ask(message: str, given_up: Callable[[], bool]) -> str | float:
    """Show `message` and ask what to do: return "continue", "stop", or a learning rate to continue with.

    Returns "stop" if the terminal is closed, or if `given_up()` becomes true before an answer.
    """
    choices = "c or Enter: continue   RATE (e.g. 0.01): continue with this learning rate   s or Ctrl+C: save and stop"
    print(f"{message}\n  {choices}", flush=True)
    while True:
        print("c, RATE or s> ", end="", flush=True)
        # A blocking read would miss a signal that arrives just before it.
        while not select.select([sys.stdin], [], [], 0.1)[0]:
            if given_up():
                print()
                return "stop"
        try:
            line = sys.stdin.readline()
        except OSError:  # the terminal is closed
            line = ""
        answer = line.strip().lower()
        if not line:
            print()
        if answer == "s" or not line:
            return "stop"
        if answer in ("c", ""):
            return "continue"
        try:
            return flags.positive(answer)
        except ArgumentTypeError:
            print(f"{answer!a} is not c, s or a learning rate above 0")
