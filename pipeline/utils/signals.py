"""The signals that ask a process to end."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress

# Ctrl+C; a batch system, a shutdown or a power failure; a terminal that closes. Batch systems warn by the signal that a
# job names, or before its time of computing is over (SIGXCPU).
STOPS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGPWR")
    if hasattr(signal, name)
)


def handle_stops(handler: Callable | signal.Handlers) -> dict[int, Callable | signal.Handlers]:
    """Let `handler` answer `STOPS`, save those that the process was started to ignore; return what answered before.

    `nohup` ignores SIGHUP, and a shell script Ctrl+C for what it starts in the background.
    """
    return {number: signal.signal(number, handler) for number in STOPS if signal.getsignal(number) != signal.SIG_IGN}


def write_from_handler(text: str, descriptor: int = 2) -> None:
    """Write `text` from inside a signal handler: the signal may have come in the middle of a `print`.

    Whoever read it may be gone by the same signal, which is no reason to lose anything else.
    """
    with suppress(OSError):
        os.write(descriptor, text.encode())
