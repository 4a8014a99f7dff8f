"""Write data files (see `pipeline.io.hdf5dataset`)."""

import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Self

import numpy as np

from pipeline.errors import InputError
from pipeline.files.atomic import flush, make_folder
from pipeline.files.blockwriter import BlockWriter
from pipeline.files.hdf5 import MAX_TEXT
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
        self._block = BlockWriter(self.output_path, DATA, data_key, self.dims)
        self._buffer_size = buffer_size
        self._buffer: list[np.ndarray] = []
        self._labels = np.empty(self.dims[0], np.int64)
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
                self._block.store(key, np.array([name.encode() for name in names]))

    def close(self) -> None:
        """Complete the file and rename it to its final name.

        Raises:
            InputError: fewer rows than `dims` were added; the file is removed.
        """
        if not self._block.is_open:
            return
        try:
            if self._added < self.dims[0]:
                raise InputError(f"{self._added} rows for {self.output_path}; expected {self.dims[0]}")
            self._write()
            self._block.store("labels", self._labels)
            temporary = self._block.finish()
            flush(temporary)
            _check_absent(self.output_path)
            os.rename(temporary, self.output_path)
            flush(self.output_path.parent)
        except BaseException:
            self._block.discard()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None:
            self.close()
        else:
            self._block.discard()

    def _write(self) -> None:
        rows = np.concatenate(self._buffer) if len(self._buffer) > 1 else next(iter(self._buffer), ())
        if len(rows):
            self._block.write(np.ascontiguousarray(rows))
            self._written += len(rows)
        self._buffer.clear()


def _check_absent(path: Path) -> None:
    if path.exists():
        raise InputError(f"{path} already exists; remove it, or name another file")
