"""One process at a time in a folder."""

import errno
import fcntl
import logging
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from pipeline.errors import InputError

_HELD = (errno.EAGAIN, errno.EACCES)


class Lock:
    """Holds `folder` against every other process that asks for it, through the file `name` in it; a context manager.

    The system lets go of the lock when the process ends, however it ends; the file stays, so that no process can lock
    one that another has just removed. On a file system without locks, as some network file systems are, nothing is
    held, which is logged once.

    Raises:
        InputError: another process holds the folder; the message names it.
    """

    _is_told = False

    def __init__(self, folder: Path, name: str = ".lock") -> None:
        self.folder = folder
        self.path = folder / name
        self._descriptor: int | None = None

    def hold(self) -> None:
        """Take the lock, or see that it is still held: whoever removes the folder removes the lock with it."""
        if self._is_held():
            return
        self._release()
        try:
            self._descriptor = self._open()
        except PermissionError as error:
            self._tell(error)
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _HELD:
                self._tell(error)
                return
            holder = os.pread(self._descriptor, 200, 0).decode(errors="replace") or "another process"
            self._release()
            raise InputError(f"{self.folder} is in use by {holder}; wait for its end or name another folder") from error
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        with suppress(OSError):  # a full disk, or another user's file: the lock holds all the same, without our name
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()} since {since}".encode(), 0)

    def __enter__(self) -> Self:
        self.hold()
        return self

    def __exit__(self, *error) -> None:
        self._release()

    def _open(self) -> int:
        """A descriptor of the lock's file, for all who share the folder, as far as the umask lets them."""
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except PermissionError:
            if not self.path.exists():
                raise
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def _tell(self, error: OSError) -> None:
        if not Lock._is_told:
            Lock._is_told = True
            logging.getLogger(__name__).warning(
                "%s can't be locked (%s): start no second run there", self.folder, error.strerror or error
            )

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
