"""Ctrl+C and SIGTERM while there is something to save."""

import os
import signal
from types import FrameType
from typing import Self


class Stopped(Exception):  # noqa: N818  (as KeyboardInterrupt, no error)
    """A request to stop was met; `exit_code` is what the process returns."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class StopRequest:
    """Turns the first Ctrl+C, and SIGTERM, into a request that the run meets at the end of its batch.

    A second Ctrl+C ends the process at once: whatever is being written is written under another name until it is whole.
    A context manager; the handlers that were there come back at its end.

    Attributes:
        signal: number of the signal that asked, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> Self:
        self._earlier = {number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def clear(self) -> None:
        """The request has been met, and the run goes on."""
        self.signal = None

    @property
    def exit_code(self) -> int:
        """What a process that a signal stopped returns."""
        return 128 + self.signal

    def _request(self, number: int, frame: FrameType | None) -> None:
        again = number == signal.SIGINT and self.signal == signal.SIGINT
        if again:
            # Not print: the signal may have come in the middle of one.
            os.write(2, b"\nstopped at once\n")
            os._exit(128 + number)
        if self.signal != number:
            name = b"Ctrl+C" if number == signal.SIGINT else b"SIGTERM"
            hint = b"; Ctrl+C again stops at once" if number == signal.SIGINT else b""
            os.write(2, b"\n" + name + b": finishing the batch" + hint + b"\n")
        self.signal = number
