"""Ctrl+C, SIGTERM and the like while there is something to save."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from pipeline.utils.signals import handle_stops, write_from_handler


class Stopped(Exception):  # noqa: N818  (as KeyboardInterrupt, no error)
    """A request to stop was met; `exit_code` is what the process returns."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class StopRequest:
    """Turns the first Ctrl+C, and every other signal that asks to end, into a request, met at the end of the batch.

    A second Ctrl+C ends the process at once: whatever is being written is written under another name until it is whole.
    A context manager; the handlers that were there come back at its end.

    Attributes:
        interrupted: whether Ctrl+C asked.
        terminated: the number of the signal that asked and can't be taken back, as SIGTERM, or 0.
        is_answered: whether Ctrl+C came within `asking`.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self.terminated = 0
        self.is_answered = False
        self._is_asking = False

    def __bool__(self) -> bool:
        return self.interrupted or bool(self.terminated)

    def __enter__(self) -> Self:
        self._earlier = handle_stops(self._request)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """What a process that stops on request returns."""
        return 128 + (self.terminated or signal.SIGINT)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Take Ctrl+C for an answer to a question: nothing is being done meanwhile that it could end at once."""
        self.is_answered, self._is_asking = False, True
        try:
            yield
        finally:
            self._is_asking = False

    def _request(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT:
            if not self.terminated:
                self.terminated = number
                write_from_handler(f"\n{signal.Signals(number).name}: finishing the batch\n")
        elif self._is_asking:
            self.is_answered = True
        elif not self.interrupted:
            self.interrupted = True
            write_from_handler("\nCtrl+C: finishing the batch; Ctrl+C again stops at once\n")
        else:
            write_from_handler("\nstopped at once; what came after the newest checkpoint is lost\n")
            os._exit(128 + number)
