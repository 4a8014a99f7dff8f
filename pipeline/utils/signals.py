"""Signals that ask a process to stop."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress

# From Ctrl+C, batch systems, a shutdown or power failure, a closed terminal. Batch systems send the signal that a job
# asks for, or SIGXCPU before its CPU time ends.
STOPS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGPWR")
    if hasattr(signal, name)
)


def handle_stops(handler: Callable | signal.Handlers) -> dict[int, Callable | signal.Handlers]:
    """Install `handler` for `STOPS`; return the previous handlers.

    Ignored signals stay ignored: `nohup` ignores SIGHUP, and shell scripts ignore Ctrl+C for background jobs.
    """
    return {number: signal.signal(number, handler) for number in STOPS if signal.getsignal(number) != signal.SIG_IGN}


def write_from_handler(text: str, descriptor: int = 2) -> None:
    """Write `text` inside a signal handler, which may have interrupted a `print`.

    Errors are ignored: the same signal may have ended the reader.
    """
    with suppress(OSError):
        os.write(descriptor, text.encode())
