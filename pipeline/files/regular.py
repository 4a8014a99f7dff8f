"""Open and read regular files only."""

import errno
import os
import stat
from os import PathLike

# Large enough for most small images.
_FIRST = 1 << 14
_BLOCK = 1 << 20


def open_regular(path: str | PathLike) -> int:
    """Open the regular file `path` for reading; return its descriptor.

    Raises:
        OSError: it can't be opened, or isn't a regular file: a named pipe or a device could block forever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, os.strerror(code) if stat.S_ISDIR(mode) else "Not a regular file", str(path))
    return descriptor


def read_regular(path: str | PathLike, max_bytes: int) -> bytes:
    """Read the regular file `path`.

    Raises:
        OSError: it can't be read, isn't a regular file, or has more than `max_bytes` bytes.
    """
    # System calls, because opening a Python file object takes a fifth of the time to decode a small image.
    descriptor = open_regular(path)
    try:
        content = os.read(descriptor, _FIRST)
        if len(content) == _FIRST:
            parts = [content]
            size = len(content)
            while size <= max_bytes and (part := os.read(descriptor, _BLOCK)):
                parts.append(part)
                size += len(part)
            content = b"".join(parts)
    finally:
        os.close(descriptor)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"More than {max_bytes:,} bytes", str(path))
    return content
