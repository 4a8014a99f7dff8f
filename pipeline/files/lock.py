"""Lock a folder for one process at a time."""

import errno
import fcntl
import logging
import os
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from pipeline.errors import InputError
from pipeline.files.regular import open_regular

_HELD = (errno.EAGAIN, errno.EACCES)
# The file can't be opened by this user, or is a link, a folder, or a pipe.
_NO_FILE = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENXIO)
# `inspect` holds a free lock for microseconds.
_ATTEMPTS, _PAUSE = 3, 0.05


class Lock:
    """Lock `folder` through the file `name` in it; a context manager.

    The system releases the lock when the process ends, however it ends. The file stays, because a process could lock
    one that another has just removed. If the file can't be opened, or the file system has no locks, as some network
    file systems, nothing is locked, and a warning is logged once.

    Raises:
        InputError: another process holds the lock; the message names it.
    """

    _has_warned = False

    def __init__(self, folder: Path, name: str = ".lock") -> None:
        self.folder = folder
        self.path = folder / name
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Acquire the lock, unless this object still holds it; removing the folder releases it."""
        if self._is_held():
            return
        self._release()
        try:
            self._descriptor = self._open()
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            self._warn(error)
            return
        try:
            if not _is_locked(self._descriptor):
                holder = _holder(self._descriptor)
                self._release()
                raise InputError(f"{self.folder} is in use by {holder}; wait until it ends, or name another folder")
        except OSError as error:
            self._warn(error)
        self.describe()

    def describe(self, note: str = "") -> None:
        """Write the name of this process into the file, with `note` at its end."""
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        name = f"process {os.getpid()} on {socket.gethostname()} since {since}{note}"
        if self._descriptor is not None:
            with suppress(OSError):  # a full disk, or another user's file: the lock holds without our name
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, name.encode(), 0)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *error) -> None:
        self._release()

    def _open(self) -> int:
        """Open the lock's file, created with permissions for all who share the folder, as far as the umask allows."""
        options = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | options, 0o666)
        except PermissionError:
            if not self.path.exists():
                raise
            descriptor = os.open(self.path, os.O_RDONLY | options)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:  # the name of the process would go elsewhere
            os.close(descriptor)
            raise OSError(errno.ELOOP, "Not a regular file of its own", str(self.path))
        return descriptor

    def _warn(self, error: OSError) -> None:
        if not Lock._has_warned:
            Lock._has_warned = True
            logging.getLogger(__name__).warning(
                "can't lock %s (%s): don't start a second run there", self.folder, error.strerror or error
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


def inspect(path: Path) -> tuple[str, bool | None]:
    """Return what the last holder of the lock file `path` wrote, and whether a process holds the lock now.

    The latter is None on a file system without locks.

    Raises:
        OSError: the file can't be read.
    """
    descriptor = open_regular(path)
    try:
        text = _holder(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return text, True if error.errno in _HELD else None
        return text, False
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    """Lock the open file; return False if another process holds the lock. Raises `OSError` without locks."""
    for attempt in range(_ATTEMPTS):
        time.sleep(_PAUSE if attempt else 0.0)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in _HELD:
                raise
    return False


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 300, 0).decode(errors="replace") or "another process"
