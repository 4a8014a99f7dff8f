"""Write data files (see `pipeline.io.hdf5dataset`)."""

import errno
import hashlib
import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Self

import h5py
import numpy as np

from pipeline.errors import InputError
from pipeline.files.atomic import flush, make_folder, temporary_path
from pipeline.files.hdf5 import MAX_TEXT
from pipeline.files.sealed import BLOCK, Seal, digest_of
from pipeline.io.hdf5dataset import DATA


class HDF5DatasetWriter:
    """Write images and their labels to a data file; a context manager.

    The file appears under its name when it is closed complete, and not at all if anything fails.

    Args:
        dims: shape of all images, (n, height, width, channels).
        output_path: the file, which must not exist.
        data_key: name of the images in the file.
        buffer_size: number of images to collect before they are written, at least 1.

    Raises:
        InputError: (a `ValueError`) the file exists, or an argument is out of range.
    """

    def __init__(
        self, dims: Sequence[int], output_path: str | PathLike, data_key: str = "images", buffer_size: int = 1000
    ) -> None:
        self.dims = tuple(dims)
        self.output_path = Path(output_path)
        if len(self.dims) != 4 or min(self.dims) < 1:
            raise InputError(f"dims is {self.dims}; expected (images, height, width, channels), each at least 1")
        if buffer_size < 1:
            raise InputError(f"buffer_size is {buffer_size}; expected a number of images of at least 1")
        _check_absent(self.output_path)
        make_folder(self.output_path.parent)
        self._temporary = temporary_path(self.output_path)
        # No other process knows the name, and some file systems have no locks.
        self._file = h5py.File(self._temporary, "w", userblock_size=BLOCK, locking=False)
        self._images = _allocate(self._file, data_key, self.dims)
        self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CLOEXEC)
        self._reserve()
        self._buffer_size = buffer_size
        self._buffer: list[np.ndarray] = []
        self._labels = np.empty(self.dims[0], np.int64)
        self._digest = hashlib.sha256()
        self._added = 0
        self._written = 0

    def add(self, rows: Sequence | np.ndarray, labels: Sequence[int] | np.ndarray) -> None:
        """Append images, uint8 (m, height, width, channels), and their labels, integers (m,) of at least 0.

        Raises:
            InputError: images and labels differ in number, have an unexpected shape or type, or exceed `dims`.
        """
        rows, labels = np.asarray(rows), np.asarray(labels)
        if rows.dtype != np.uint8 or rows.shape[1:] != self.dims[1:]:
            raise InputError(f"rows are {rows.dtype} {rows.shape}; expected uint8 images of shape {self.dims[1:]}")
        if labels.shape != rows.shape[:1] or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
            raise InputError(f"labels are {labels.dtype} {labels.shape}; expected {len(rows)} integers of at least 0")
        if self._added + len(rows) > self.dims[0]:
            raise InputError(f"{self._added + len(rows)} rows for {self.output_path}; expected {self.dims[0]}")
        self._labels[self._added : self._added + len(rows)] = labels
        self._added += len(rows)
        self._buffer.append(rows)
        if self._added - self._written >= self._buffer_size:
            self._write()
        else:
            self._buffer[-1] = rows.copy()

    def store_class_labels(self, class_labels: Sequence[str], words: Sequence[str] = ()) -> None:
        """Store the source's name of each class, in the order of the labels, and optionally readable `words`.

        Raises:
            InputError: a name isn't printable, or is longer than `MAX_TEXT` bytes.
        """
        for key, names in {"label_names": class_labels, "words": words}.items():
            for name in names:
                if not name.isprintable() or len(name.encode()) > MAX_TEXT:
                    raise InputError(f"class name {name!a:.100}: expected printable text of at most {MAX_TEXT} bytes")
            if names:
                self._file[key] = np.array([name.encode() for name in names])

    def close(self) -> None:
        """Complete the file and rename it to its final name.

        Raises:
            InputError: fewer rows than `dims` were added; the file is removed.
        """
        if not self._file:
            return
        try:
            if self._added < self.dims[0]:
                raise InputError(f"{self._added} rows for {self.output_path}; expected {self.dims[0]}")
            self._write()
            self._file["labels"] = self._labels
            self._images.attrs["sha256"] = np.bytes_(self._digest.hexdigest())
            self._file.attrs["complete"] = True
            images = (self._images.id.get_offset(), self._images.size)
            self._close_files()
            _seal(self._temporary, images)
            flush(self._temporary)
            _check_absent(self.output_path)
            os.rename(self._temporary, self.output_path)
            flush(self.output_path.parent)
        except BaseException:
            self._discard()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None:
            self.close()
        else:
            self._discard()

    def _write(self) -> None:
        rows = np.concatenate(self._buffer) if len(self._buffer) > 1 else next(iter(self._buffer), ())
        if len(rows):
            content = memoryview(np.ascontiguousarray(rows)).cast("B")
            self._digest.update(content)
            offset = self._images.id.get_offset() + self._written * rows[0].size
            self._written += len(rows)
            while content:
                count = os.pwrite(self._descriptor, content, offset)
                content, offset = content[count:], offset + count
        self._buffer.clear()

    def _reserve(self) -> None:
        """Reserve disk space for all images, if the system can: a full disk fails here, and writing is faster."""
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._descriptor, self._images.id.get_offset(), self._images.size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
                    self._discard()
                    raise

    def _discard(self) -> None:
        try:
            self._close_files()
        finally:
            self._temporary.unlink(missing_ok=True)

    def _close_files(self) -> None:
        if self._file:
            os.close(self._descriptor)
            self._file.close()


def _check_absent(path: Path) -> None:
    if path.exists():
        raise InputError(f"{path} already exists; remove it, or name another file")


def _seal(path: Path, images: tuple[int, int]) -> None:
    """Write the seal of a data file, given the offset and size of its images."""
    with open(path, "r+b", buffering=0) as file:
        length = os.fstat(file.fileno()).st_size - BLOCK
        file.write(Seal(DATA.magic, length, digest_of(file, *images), images).pack())


def _allocate(file: h5py.File, key: str, shape: tuple[int, ...]) -> h5py.Dataset:
    """Allocate a uint8 dataset with a fixed offset, so that it can be written without the HDF5 library.

    The library would hold Python's interpreter lock during a write, and block the decoding of the next images.
    """
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_obj_track_times(False)  # so that the same input gives the same bytes
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    return h5py.Dataset(h5py.h5d.create(file.id, key.encode(), h5py.h5t.STD_U8LE, space, properties))
