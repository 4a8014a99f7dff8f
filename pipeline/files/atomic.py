"""Write files atomically: a file is absent, complete, or ignored."""

import errno
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.errors import InputError, as_input_error

# Errors of file systems that can't flush a file or folder, or can't open it for that.
_CAN_NOT_FLUSH = {
    errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.EACCES, errno.EPERM,
    errno.EISDIR,
}  # fmt: skip

_BLOCK = 1 << 20


class WriteError(OSError):
    """A file couldn't be written. An existing file of that name is untouched."""

    def __init__(self, path: Path, bytes_needed: int | None, error: OSError) -> None:
        needed = "" if bytes_needed is None else f"; {bytes_needed:,} bytes needed"
        room = ""
        with suppress(OSError):  # the disk is gone
            folder = next(parent for parent in path.absolute().parents if parent.is_dir())
            room = f", {shutil.disk_usage(folder).free:,} free"
        super().__init__(f"can't write {path}: {error.strerror or error}{needed}{room}")


def write_atomically(path: Path, *parts: bytes) -> None:
    """Write `parts`, concatenated, to the file `path`, so that readers see either the old or the new file.

    The bytes go to a file ending in `.tmp` beside `path`, are flushed to disk, read back and compared; then the file is
    renamed, and its folder flushed. A missing folder is created.

    Raises:
        WriteError: the disk is full, the folder isn't writable or can't be created, or the bytes read back differ.
    """
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Whatever has this name, such as a link or a pipe, must not be written to.
            temporary.unlink(missing_ok=True)
            with open(temporary, "wb") as file:
                file.writelines(parts)
                file.flush()
                _flush(file.fileno())
                with suppress(AttributeError, OSError):  # read back from disk, not from the page cache
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if not _holds(temporary, parts):
                raise OSError("the bytes read back differ from those written")
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        flush(path.parent)
    except OSError as error:
        raise WriteError(path, sum(map(len, parts)), error) from error


def _holds(path: Path, parts: Sequence[bytes]) -> bool:
    """Return whether the file `path` holds exactly `parts`; keeps one block of it in memory."""
    with open(path, "rb") as file:
        blocks = (part[start : start + _BLOCK] for part in parts for start in range(0, len(part), _BLOCK))
        return all(file.read(len(block)) == block for block in blocks) and not file.read(1)


def temporary_path(path: Path) -> Path:
    """Return the temporary name of `path`, which ends in `.tmp`; readers ignore such files."""
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")


def flush(path: Path) -> None:
    """Flush the file or folder `path` to disk, if the file system can."""
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
    """Remove unfinished files that killed processes left in `folder`, if `names` matches their full final name.

    Call it only while no other process can be writing them.
    """
    for path in folder.iterdir():
        name = re.fullmatch(r"(.+)\.\d+\.tmp", path.name)
        if name and names.fullmatch(name[1]) and path.is_file():
            path.unlink()


def check_folder(path: Path) -> None:
    """Raise `InputError` if the folder `path` can't be created or written to, as far as its permissions show."""
    there = path
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise InputError(f"can't create folder {path}: {there} is a file; name another folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"can't write to folder {there}; name another folder or change its permissions")


def make_folder(path: Path) -> None:
    """Create the folder `path` if it is missing; raise `InputError` if it can't be created or written to."""
    with as_input_error(OSError, f"can't create folder {path}: ", "; name another folder"):
        path.mkdir(parents=True, exist_ok=True)
    check_folder(path)


def move_aside(paths: list[Path]) -> list[Path]:
    """Move the files `paths` to the next free `earlier-1`, `earlier-2`, ... in their folders; return those folders."""
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
