"""Read data files: the HDF5 file of one split of a data set, written by `HDF5DatasetWriter`.

    bytes 0-511   the seal (see `pipeline.files.sealed`); its two numbers are the offset and size of the images in
                  bytes, which its digest omits
    images        uint8 (n, height, width, channels), one contiguous, unfiltered block, so that rows have fixed offsets;
                  its attribute `sha256` is the digest of the images
    labels        int64 (n,), 0 to classes - 1
    label_names   bytes (classes,), the source's name for each class, such as a WordNet id; optional
    words         bytes (classes,), UTF-8, readable names of the classes; optional

The attribute `complete` of the file, the digest and the seal are written last.
"""

import hashlib
import math
import os
import weakref
from collections.abc import Callable
from os import PathLike
from pathlib import Path

import h5py
import numpy as np

from pipeline.errors import InputError, as_input_error
from pipeline.files.hdf5 import (
    check_attributes,
    check_disjoint,
    check_members,
    dataset_of,
    flag_attribute,
    text_attribute,
)
from pipeline.files.sealed import FileFormat, Seal, blocks, open_sealed
from pipeline.io.imageset import ImageSet
from pipeline.utils import memory

DATA = FileFormat(b"ResNet data 1\n", "data file", "build it again")

_MAX_IMAGES = 1 << 24
_MAX_IMAGE_BYTES = 1 << 26
_MAX_CLASSES = 1 << 16
# Maximum size of HDF5's metadata in bytes; these few datasets need a few kilobytes.
_MAX_OVERHEAD = 1 << 20


class HDF5Images(ImageSet):
    """The images of a data file, read row by row on demand.

    Rows are read by their offset in the file, without the HDF5 library: from several threads at once, directly into the
    batch, and without mapping the file into memory.

    Args:
        path: the file.
        classes: number of classes; None takes the number of the file's `label_names`.
        images_key: name of the images in the file.

    Attributes:
        class_names: the file's `words`, else its `label_names`, else numbers.
        label_names: the file's `label_names`, which may be empty.
        offset, shape: offset of the first image in the file in bytes, and shape of all images.

    Raises:
        InputError: (a `ValueError`) the file is missing, truncated, damaged, not a data file of this project, or has
            more classes than `classes`.
    """

    def __init__(self, path: str | PathLike, classes: int | None = None, images_key: str = "images") -> None:
        self.path = path = Path(path)
        if not os.path.lexists(path):
            raise InputError(f"data file {path} is missing; build the data set first")
        with open_sealed(path, DATA, skip_numbered=True) as (file, source, seal):
            with as_input_error(ValueError, f"data file {path} was not written by this project: ", "; build it again"):
                parts = _read(file, images_key, seal)
            self._descriptor = os.dup(source.fileno())
        # Closed with the last object that reads the file, also if the checks below fail.
        self._close_file = weakref.finalize(self, os.close, self._descriptor)
        self.offset, self.shape, self.labels = parts["offset"], parts["shape"], parts["labels"]
        self.label_names, self._sha256, self._digest = parts["label_names"], parts["sha256"], parts["digest"]
        self.image_shape = self.shape[1:]
        self._rows = np.arange(len(self.labels))
        count = len(self.label_names) if classes is None else classes
        if not count:
            raise InputError(f"data file {path} doesn't name its classes; set their number, `classes`")
        if count <= self.labels.max():
            raise InputError(f"{path} holds labels up to {self.labels.max()}; expected {count} classes")
        names = parts["words"] or self.label_names
        self.class_names = names if len(names) == count else tuple(map(str, range(count)))

    def load(self, rows: np.ndarray) -> np.ndarray:
        images = memory.empty((len(rows), *self.image_shape), np.uint8)
        offsets = self.offset + self._rows[rows] * math.prod(self.image_shape)
        try:
            for image, offset in zip(images, offsets.tolist(), strict=True):
                if os.preadv(self._descriptor, [image], offset) != image.size:
                    raise InputError(f"data file {self.path} was truncated; build it again")
        except OSError as error:
            raise OSError(f"can't read data file {self.path}: {error.strerror or error}") from error
        return images

    def subset(self, rows: np.ndarray) -> "HDF5Images":
        subset = HDF5Images.__new__(HDF5Images)
        # A reference to its owner keeps the file open.
        subset.__dict__ |= self.__dict__ | {"labels": self.labels[rows], "_rows": self._rows[rows], "_owner": self}
        return subset

    def digest(self) -> str:
        """Return the digest of the whole file, also for a subset of it."""
        return self._digest

    def check_images(self, advance: Callable[[int], None]) -> None:
        """Read all images and check their digest; call `advance` with the number of bytes of each block.

        Raises:
            InputError: the images have changed since they were written.
        """
        digest = hashlib.sha256()
        for block in blocks(self._descriptor, self.offset, self.offset + math.prod(self.shape)):
            digest.update(block)
            advance(len(block))
        if digest.hexdigest() != self._sha256:
            raise DATA.damaged(self.path, "the digest of its images differs")

    def close(self) -> None:
        """Close the file; neither this object nor a subset can be read afterwards."""
        self._close_file()


def _read(file: h5py.File, images_key: str, seal: Seal) -> dict:
    """Read and check everything in the file but the images."""
    if not flag_attribute(file, "complete"):
        raise InputError("it is not marked complete")
    images = dataset_of(file, images_key, ["u1"], (None,) * 4)
    if len(images) > _MAX_IMAGES or images.size > len(images) * _MAX_IMAGE_BYTES:
        raise InputError(
            f"its images have shape {images.shape}; expected at most {_MAX_IMAGES:,} of {_MAX_IMAGE_BYTES:,} bytes"
        )
    if seal.numbers != (images.id.get_offset(), images.size):
        found = images.id.get_offset(), images.size
        raise InputError(f"its seal gives {seal.numbers} as offset and size of the images; its dataset has {found}")
    names = [key for key in ("label_names", "words") if key in file]
    check_members(file, dict.fromkeys((images_key, "labels", *names)))
    labels = dataset_of(file, "labels", ["<i8"], images.shape[:1])[()]
    classes = None
    texts = {"label_names": (), "words": ()}
    for key in names:
        stored = dataset_of(file, key, ["S"], (classes,))
        classes = len(stored)
        if classes > _MAX_CLASSES:
            raise InputError(f"it names {classes:,} classes; expected at most {_MAX_CLASSES:,}")
        texts[key] = tuple(name.decode() for name in stored[()])
        if strange := [name for name in texts[key] if not name.isprintable()]:
            raise InputError(f"{key} holds {strange[0]!a:.100}, which is not printable")
    largest = (classes or _MAX_CLASSES) - 1
    if labels.min() < 0 or labels.max() > largest:
        raise InputError(f"it holds labels from {labels.min()} to {labels.max()}; expected 0 to {largest}")
    expected = sum(dataset.nbytes for dataset in file.values()) + _MAX_OVERHEAD
    if seal.length > expected:
        raise InputError(f"it has {seal.length:,} bytes; expected at most {expected:,} for its datasets")
    check_disjoint(file.values())
    check_attributes(file, ["complete"])
    for dataset in file.values():
        check_attributes(dataset, ["sha256"] if dataset == images else [])
    images_sha256 = text_attribute(images, "sha256", 64)
    digest = hashlib.sha256(repr((images.shape, images_sha256, texts)).encode())
    digest.update(labels.data)
    return texts | {
        "offset": images.id.get_offset(),
        "shape": images.shape,
        "labels": labels,
        "sha256": images_sha256,
        "digest": digest.hexdigest(),
    }
