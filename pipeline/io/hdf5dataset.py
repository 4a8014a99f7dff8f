"""The HDF5 file of one split of a data set, as `HDF5DatasetWriter` writes it.

    bytes 0-511   the seal (see `pipeline.files.sealed`); its two numbers are where the images lie, and their bytes,
                  which its digest leaves out
    images        uint8 (n, height, width, channels), one contiguous unfiltered block, so that a row has a fixed place;
                  its attribute `sha256` is the digest of its values
    labels        int64 (n,), 0 to classes - 1
    label_names   bytes (classes,), the name that stands for each label in the source; optional
    words         bytes (classes,), UTF-8, what the class is called; optional

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

from pipeline.errors import InputError, refusing
from pipeline.files.hdf5 import (
    check_attributes,
    check_disjoint,
    check_members,
    dataset_of,
    flag_attribute,
    text_attribute,
)
from pipeline.files.sealed import Kind, Seal, blocks, open_sealed
from pipeline.io.imageset import ImageSet
from pipeline.utils import memory

DATA = Kind(b"ResNet data 1\n", "data file", "build it again")

_MAX_IMAGES = 1 << 24
_MAX_IMAGE_BYTES = 1 << 26
_MAX_CLASSES = 1 << 16
# What HDF5 needs of its own for so few datasets is a few kilobytes.
_MAX_BESIDE = 1 << 20


class HDF5Images(ImageSet):
    """The images of a file that `HDF5DatasetWriter` wrote, read row by row as they are needed.

    Rows are read past the HDF5 library, by their place in the file: from several threads at once, into the batch, and
    with no page of the file counted as this process's memory.

    Args:
        path: the file.
        classes: number of classes; that of the file's `label_names` if None, which then must be there.
        images_key: name of the images in the file.

    Attributes:
        class_names: the file's `words`, else its `label_names`, else numbers.
        label_names: those in the file; there may be none.
        offset, shape: where the images lie in the file, in bytes, row after row, and their shape in all.

    Raises:
        InputError: (a `ValueError`) the file is missing, cut short, damaged, or not what was written, or has other
            classes.
    """

    def __init__(self, path: str | PathLike, classes: int | None = None, images_key: str = "images") -> None:
        self.path = path = Path(path)
        if not os.path.lexists(path):
            raise InputError(f"data file {path} is missing; build the data set first")
        with open_sealed(path, DATA, spare=True) as (file, source, seal):
            with refusing(ValueError, f"data file {path} is not one that this project wrote: ", "; build it again"):
                parts = _read(file, images_key, seal)
            self._descriptor = os.dup(source.fileno())
        # Given back with the last object that reads it, also if what follows refuses an argument.
        self._close_file = weakref.finalize(self, os.close, self._descriptor)
        self.offset, self.shape, self.labels = parts["offset"], parts["shape"], parts["labels"]
        self.label_names, self._sha256, self._digest = parts["label_names"], parts["sha256"], parts["digest"]
        self.image_shape = self.shape[1:]
        self._rows = np.arange(len(self.labels))
        count = len(self.label_names) if classes is None else classes
        if not count:
            raise InputError(f"data file {path} doesn't name its classes; give their number, `classes`")
        if count <= self.labels.max():
            raise InputError(f"{path} holds labels up to {self.labels.max()}; expected {count} classes")
        names = parts["words"] or self.label_names
        self.class_names = names if len(names) == count else tuple(map(str, range(count)))

    def stored(self, rows: np.ndarray) -> np.ndarray:
        images = memory.empty((len(rows), *self.image_shape), np.uint8)
        places = self.offset + self._rows[rows] * math.prod(self.image_shape)
        try:
            for image, place in zip(images, places.tolist(), strict=True):
                if os.preadv(self._descriptor, [image], place) != image.size:
                    raise InputError(f"data file {self.path} was cut short; build it again")
        except OSError as error:
            raise OSError(f"can't read data file {self.path}: {error.strerror or error}") from error
        return images

    def choose(self, rows: np.ndarray) -> "HDF5Images":
        chosen = HDF5Images.__new__(HDF5Images)  # which keeps the file of its owner open
        chosen.__dict__ |= self.__dict__ | {"labels": self.labels[rows], "_rows": self._rows[rows], "_owner": self}
        return chosen

    def digest(self) -> str:
        """That of the whole file, whatever was chosen from it."""
        return self._digest

    def check_images(self, advance: Callable[[int], None]) -> None:
        """Read all images and check their digest; `advance` is called with the bytes of each part that was read.

        Raises:
            InputError: they have changed since they were written.
        """
        digest = hashlib.sha256()
        for block in blocks(self._descriptor, self.offset, self.offset + math.prod(self.shape)):
            digest.update(block)
            advance(len(block))
        if digest.hexdigest() != self._sha256:
            raise DATA.damaged(self.path, "the digest of its images differs")

    def close(self) -> None:
        """Let go of the file; nothing can be read afterwards, nor of what was chosen from it."""
        self._close_file()


def _read(file: h5py.File, images_key: str, seal: Seal) -> dict:
    """What the file says of itself, each part checked; the images stay on the disk, unread."""
    if not flag_attribute(file, "complete"):
        raise InputError("it is not marked complete")
    images = dataset_of(file, images_key, ["u1"], (None,) * 4)
    if len(images) > _MAX_IMAGES or images.size > len(images) * _MAX_IMAGE_BYTES:
        raise InputError(f"it holds images of shape {images.shape}, which are more or larger than it can hold")
    if seal.numbers != (images.id.get_offset(), images.size):
        raise InputError("its first bytes tell of other images")
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
            raise InputError(f"{key} holds {strange[0]!a:.100}, which is no name to print")
    largest = (classes or _MAX_CLASSES) - 1
    if labels.min() < 0 or labels.max() > largest:
        raise InputError(f"it holds labels from {labels.min()} to {labels.max()}; expected 0 to {largest}")
    if seal.length > sum(dataset.nbytes for dataset in file.values()) + _MAX_BESIDE:
        raise InputError(f"it has {seal.length:,} bytes, far more than its datasets")
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
