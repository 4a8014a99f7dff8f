"""Write sealed HDF5 files in which one dataset, a block of bytes, is far larger than all others."""

import errno
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from pipeline.files.atomic import temporary_path
from pipeline.files.sealed import BLOCK, FileFormat, Seal, digest_of


class BlockWriter:
    """Write a sealed HDF5 file under a temporary name: the block piece by piece, all else through `file`.

    The block is written without the HDF5 library, which would hold Python's interpreter lock during a write, and block
    the threads that prepare the next piece.

    Args:
        path: final name of the file; its folder must exist.
        file_format: format of the file.
        key: name of the block's dataset.
        shape: shape of the block, uint8.

    Attributes:
        file: the open HDF5 file, for further datasets and attributes.
        temporary: path of the file until the caller renames it.
        written: number of bytes of the block written so far.

    Raises:
        OSError: the disk is full or fails.
    """

    def __init__(self, path: Path, file_format: FileFormat, key: str, shape: Sequence[int]) -> None:
        self.temporary = temporary_path(path)
        self._format = file_format
        # No other process knows the name, and some file systems have no locks.
        self.file = h5py.File(self.temporary, "w", userblock_size=BLOCK, locking=False)
        self._block = _allocate(self.file, key, tuple(shape))
        self._descriptor = os.open(self.temporary, os.O_WRONLY | os.O_CLOEXEC)
        self._digest = hashlib.sha256()
        self._offset, self._size = self._block.id.get_offset(), self._block.size
        self.written = 0
        self._reserve()

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

    def finish(self, mark: bytes = bytes(32)) -> Path:
        """Complete the file with its digests, `mark` and seal; return its temporary path. The caller flushes it."""
        self._block.attrs["sha256"] = np.bytes_(self._digest.hexdigest())
        self.file.attrs["complete"] = True
        self._close()
        block = (self._offset, self._size)
        with open(self.temporary, "r+b", buffering=0) as file:
            length = os.fstat(file.fileno()).st_size - BLOCK
            file.write(Seal(self._format.magic, length, digest_of(file, *block), block, mark).pack())
        return self.temporary

    def discard(self) -> None:
        """Remove the temporary file."""
        try:
            self._close()
        finally:
            self.temporary.unlink(missing_ok=True)

    def _reserve(self) -> None:
        """Reserve disk space for the block, if the system can: a full disk fails here, and writing is faster."""
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._descriptor, self._offset, self._size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
                    self.discard()
                    raise

    def _close(self) -> None:
        if self.file:
            os.close(self._descriptor)
            try:
                self.file.close()
            except RuntimeError as error:  # as h5py reports a full disk here
                number = re.search(r"errno = (\d+)", str(error))
                code = int(number[1]) if number else errno.EIO
                raise OSError(code, os.strerror(code)) from error


def _allocate(file: h5py.File, key: str, shape: tuple[int, ...]) -> h5py.Dataset:
    """Allocate a uint8 dataset with a fixed offset."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_obj_track_times(False)  # so that the same input gives the same bytes
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    return h5py.Dataset(h5py.h5d.create(file.id, key.encode(), h5py.h5t.STD_U8LE, space, properties))
