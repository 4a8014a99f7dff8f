"""Write sealed HDF5 files in which one dataset, a block of bytes, is far larger than all others."""

import errno
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np

from pipeline.files.atomic import temporary_path
from pipeline.files.sealed import BLOCK, FileFormat, Seal, digest_of


class BlockWriter:
    """Write a sealed HDF5 file under a temporary name: the block piece by piece, other datasets at once.

    The block is written without the HDF5 library, which would hold Python's interpreter lock during a write, and block
    the threads that prepare the next piece.

    Args:
        path: final name of the file; its folder must exist.
        file_format: format of the file.
        key: name of the block's dataset.
        shape: shape of the block, uint8.

    Attributes:
        temporary: path of the file until the caller renames it.
        written: number of bytes of the block written so far.
        is_open: False once the file is complete or discarded.

    Raises:
        OSError: the disk is full or fails; so do all methods.
    """

    def __init__(self, path: Path, file_format: FileFormat, key: str, shape: Sequence[int]) -> None:
        self.temporary = temporary_path(path)
        self.written = 0
        self._format = file_format
        self._digest = hashlib.sha256()
        self._file = self._descriptor = None
        try:
            with _disk_errors():
                # No other process knows the name, and some file systems have no locks.
                self._file = h5py.File(self.temporary, "w", userblock_size=BLOCK, locking=False)
                self._block = _allocate(self._file, key, tuple(shape))
            self._offset, self._size = self._block.id.get_offset(), self._block.size
            self._descriptor = os.open(self.temporary, os.O_WRONLY | os.O_CLOEXEC)
            _reserve(self._descriptor, self._offset, self._size)
        except BaseException:
            self.discard()
            raise

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def write(self, content: bytes | np.ndarray) -> None:
        """Append the bytes of `content`, which is contiguous, to the block."""
        content = memoryview(content).cast("B")
        if self.written + len(content) > self._size:
            raise ValueError(f"{self.written + len(content):,} bytes for a block of {self._size:,}")
        self._digest.update(content)
        offset = self._offset + self.written
        self.written += len(content)
        while content:
            count = os.pwrite(self._descriptor, content, offset)
            content, offset = content[count:], offset + count

    def store(self, key: str, values: np.ndarray) -> None:
        """Write another dataset."""
        with _disk_errors():
            self._file[key] = values

    def finish(self, attributes: Mapping[str, object] | None = None, mark: bytes = bytes(32)) -> Path:
        """Complete the file with `attributes`, its digests, `mark` and seal; return its temporary path.

        The caller flushes and renames it.
        """
        with _disk_errors():
            self._block.attrs["sha256"] = np.bytes_(self._digest.hexdigest())
            for name, value in ((attributes or {}) | {"complete": True}).items():
                self._file.attrs[name] = value
        self._close()
        block = (self._offset, self._size)
        with open(self.temporary, "r+b", buffering=0) as file:
            length = os.fstat(file.fileno()).st_size - BLOCK
            file.write(Seal(self._format.magic, length, digest_of(file, *block), block, mark).pack())
        return self.temporary

    def discard(self) -> None:
        """Remove the temporary file."""
        with suppress(OSError):  # of a disk that has failed before
            self._close()
        self.temporary.unlink(missing_ok=True)

    def _close(self) -> None:
        file, descriptor = self._file, self._descriptor
        self._file = self._descriptor = None
        if descriptor is not None:
            os.close(descriptor)
        if file is not None:
            with _disk_errors():
                file.close()


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Raise an error of the disk inside HDF5 as an `OSError` with its number, in place of h5py's description."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = re.search(r"errno = (\d+)", str(error))
        if number is None:
            if isinstance(error, OSError) and error.errno:
                raise
            raise OSError(errno.EIO, f"{error!s:.200}".partition("\n")[0]) from error
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def _reserve(descriptor: int, offset: int, size: int) -> None:
    """Reserve disk space, if the system can: a full disk fails here, and writing is faster."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, offset, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
                raise


def _allocate(file: h5py.File, key: str, shape: tuple[int, ...]) -> h5py.Dataset:
    """Allocate a uint8 dataset with a fixed offset."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_obj_track_times(False)  # so that the same input gives the same bytes
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    return h5py.Dataset(h5py.h5d.create(file.id, key.encode(), h5py.h5t.STD_U8LE, space, properties))
