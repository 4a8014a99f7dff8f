"""Files that are absent, complete, or ignored."""

import errno
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from pipeline.errors import InputError, refusing

# How a file system says that it can't flush something, as some do of a folder, or that it can't be opened for that.
_CAN_NOT_FLUSH = {
    errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.EACCES, errno.EPERM,
    errno.EISDIR,
}  # fmt: skip


class WriteError(OSError):
    """A file could not be written whole. What stood under its name is untouched."""

    def __init__(self, path: Path, bytes_needed: int, error: OSError) -> None:
        room = ""
        with suppress(OSError):  # a disk that has gone
            folder = next(parent for parent in path.absolute().parents if parent.is_dir())
            room = f", {shutil.disk_usage(folder).free:,} free"
        super().__init__(f"can't write {path}: {error.strerror or error}; {bytes_needed:,} bytes needed{room}")


def write_atomically(path: Path, *parts: bytes) -> None:
    """Put `parts`, one after the other, into the file `path` so that no reader ever sees a part of them there.

    They are written under a name that ends in `.tmp` beside `path`, flushed to the disk, read back from there and
    compared; then renamed, and the folder is flushed too. Whatever fails before the rename leaves the old `path` as it
    was.

    The folder of `path` is made where it is missing.

    Raises:
        WriteError: the disk is full, the folder is not writable or can't be made, or what was read back differs.
    """
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.writelines(parts)
                file.flush()
                _flush(file.fileno())
                with suppress(AttributeError, OSError):  # so that it is not the system's cache that is compared
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if temporary.read_bytes() != b"".join(parts):
                raise OSError("it reads back other than it was written")
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        flush(path.parent)
    except OSError as error:
        raise WriteError(path, sum(map(len, parts)), error) from error


def temporary_path(path: Path) -> Path:
    """The name that `path` is written under until it is whole; nothing that reads takes a `.tmp` for a file."""
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")


def flush(path: Path) -> None:
    """Return once the file, or the names in the folder, `path` are on the disk, where the file system can do that."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        if error.errno not in _CAN_NOT_FLUSH:
            raise
        return
    try:
        _flush(descriptor)
    finally:
        os.close(descriptor)


def _flush(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CAN_NOT_FLUSH:
            raise


def remove_unfinished(folder: Path, names: re.Pattern) -> None:
    """Remove what dead processes left half-written in `folder` of the files that `names` matches in full, and no more.

    Call it where no other process can be writing them.
    """
    for path in folder.iterdir():
        name = re.fullmatch(r"(.+)\.\d+\.tmp", path.name)
        if name and names.fullmatch(name[1]) and path.is_file():
            path.unlink()


def check_folder(path: Path) -> None:
    """`InputError` if the folder `path` can't be made or written to, as far as can be told without making it."""
    there = path
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise InputError(f"can't make folder {path}: {there} is a file; name another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"can't write to folder {there}; choose another place or change its permissions")


def make_folder(path: Path) -> None:
    """Create the folder `path` where it is missing; `InputError` if it can't be, or can't be written to."""
    with refusing(OSError, f"can't make folder {path}: ", "; name another place"):
        path.mkdir(parents=True, exist_ok=True)
    check_folder(path)


def move_aside(paths: list[Path]) -> list[Path]:
    """Move the files among `paths` into the next free `earlier-1`, `earlier-2`, ... of their folder; return where."""
    folders: dict[Path, Path] = {}
    for path in paths:
        if path.parent not in folders:
            number = 1
            while (path.parent / f"earlier-{number}").exists():
                number += 1
            folders[path.parent] = path.parent / f"earlier-{number}"
            folders[path.parent].mkdir()
        os.replace(path, folders[path.parent] / path.name)
    return list(folders.values())
