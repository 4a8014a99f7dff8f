"""Files that are absent, complete, or ignored."""

import os
from pathlib import Path

from pipeline.errors import InputError


def write_atomically(path: Path, *parts: bytes) -> None:
    """Put `parts`, one after the other, into the file `path` so that no reader ever sees a part of them there.

    They are written under a name that ends in `.tmp` beside `path`, flushed to the disk, read back and compared;
    then renamed, and the folder is flushed too. Whatever fails before the rename leaves the old `path` as it was.

    Raises:
        OSError: the disk is full, the folder is not writable, or what was read back differs.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        if temporary.read_bytes() != b"".join(parts):
            raise OSError(f"{temporary} reads back other than it was written")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def make_folder(path: Path) -> None:
    """Create the folder `path` where it is missing; `InputError` if it can't be, or can't be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"can't make folder {path}: a file is in its place; name another") from error
    except OSError as error:
        raise InputError(f"can't make folder {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"can't write to folder {path}; choose another or change its permissions")


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
