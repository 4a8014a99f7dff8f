"""Worker processes that end with this process, however it ends."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from pipeline.utils.signals import STOPS


@dataclass(frozen=True)
class Worker:
    """A worker process, and this process's end of the connection. If that is closed, the worker must end."""

    process: BaseProcess
    connection: Connection

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Raise `OSError` with the reason if the worker has died."""
        try:
            yield
        except (EOFError, OSError) as error:
            self.process.join(5)
            code = self.process.exitcode
            reason = {
                -signal.SIGKILL: "was killed; is there enough memory?",
                1: 'failed, see above; start it only below if __name__ == "__main__":',
            }.get(code, f"ended with exit code {code}")
            if code is not None and code < 0 and code != -signal.SIGKILL:
                reason = f"was ended by {signal.Signals(-code).name}"
            raise OSError(f"a process that decodes images {reason}") from error


def start(target: Callable, arguments: Sequence[tuple]) -> list[Worker]:
    """Start a process that runs `target(connection, *own)` for each tuple `own` in `arguments`.

    Each imports the main module, so call this there only below `if __name__ == "__main__":`.
    """
    context = multiprocessing.get_context("spawn")
    workers = []
    # Started with the first worker, the resource tracker would unblock the signals.
    resource_tracker.ensure_running()
    # Workers inherit blocked signals: only this process handles Ctrl+C, and it ends the workers by SIGTERM.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*STOPS} - {signal.SIGTERM})
    try:
        for own in arguments:
            connection, other_end = context.Pipe()
            process = context.Process(target=target, args=(other_end, *own), daemon=True)
            process.start()
            other_end.close()
            workers.append(Worker(process, connection))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return workers


@contextmanager
def started(target: Callable, arguments: Sequence[tuple]) -> Iterator[list[Worker]]:
    """Start processes as `start` does; at the end of the context, end them and wait for that."""
    processes = start(target, arguments)
    try:
        yield processes
    finally:
        for worker in processes:
            worker.connection.close()
            worker.process.terminate()
        for worker in processes:
            worker.process.join()


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
