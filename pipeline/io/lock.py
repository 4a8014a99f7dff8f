"""One process at a time in a folder."""

import fcntl
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from pipeline.errors import InputError


class Lock:
    """Holds `folder` against every other process that asks for it, through the file `name` in it; a context manager.

    The system lets go of the lock when the process ends, however it ends; the file stays, so that no process can lock
    one that another has just removed.

    Raises:
        InputError: another process holds the folder; the message names it.
    """

    def __init__(self, folder: Path, name: str = ".lock") -> None:
        self.folder = folder
        self.path = folder / name
        self._descriptor: int | None = None

    def hold(self) -> None:
        """Take the lock, or see that it is still held: whoever removes the folder removes the lock with it."""
        if self._is_held():
            return
        self._release()
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 200, 0).decode(errors="replace") or "another process"
            self._release()
            raise InputError(
                f"{self.folder} is in use by {holder}; wait for its end, or name another folder"
            ) from error
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        with suppress(OSError):  # a full disk: the lock holds all the same, only without a name
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()} since {since}".encode(), 0)

    def __enter__(self) -> Self:
        self.hold()
        return self

    def __exit__(self, *error) -> None:
        self._release()

    def _is_held(self) -> bool:
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self.path))
        except OSError:
            return False

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
