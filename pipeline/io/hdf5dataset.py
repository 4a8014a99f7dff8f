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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from pipeline.errors import InputError
from pipeline.files.hdf5 import (
    check_attributes,
    check_disjoint,
    check_members,
    dataset_of,
    flag_attribute,
    text_attribute,
)
from pipeline.files.sealed import Kind, Seal, blocks, open_sealed

DATA = Kind(b"ResNet data 1\n", "data file", "build it again")

_MAX_IMAGES = 1 << 24
_MAX_IMAGE_BYTES = 1 << 26
_MAX_CLASSES = 1 << 16
# What HDF5 needs of its own for so few datasets is a few kilobytes.
_MAX_BESIDE = 1 << 20


@dataclass(frozen=True)
class HDF5Dataset:
    """All of a file but its images: those lie at `offset`, in bytes, row after row, of `shape` in all.

    `descriptor` is the open file that all this was read from, to be closed by whoever has it; `images_sha256` is what
    the images should digest to, in hexadecimal, and `digest` names the whole content.
    """

    path: Path
    descriptor: int
    offset: int
    shape: tuple[int, int, int, int]
    labels: np.ndarray
    label_names: tuple[str, ...]
    words: tuple[str, ...]
    images_sha256: str
    digest: str

    @property
    def images_bytes(self) -> int:
        """What the images take on the disk, one byte a value."""
        return math.prod(self.shape)

    def check_images(self, advance: Callable[[int], None]) -> None:
        """Read the images and check their digest; `advance` is called with the bytes of each part that was read.

        Raises:
            InputError: they have changed since they were written.
        """
        digest = hashlib.sha256()
        for block in blocks(self.descriptor, self.offset, self.offset + self.images_bytes):
            digest.update(block)
            advance(len(block))
        if digest.hexdigest() != self.images_sha256:
            raise DATA.damaged(self.path, "the digest of its images differs")


def read_hdf5_dataset(path: str | os.PathLike, images_key: str = "images") -> HDF5Dataset:
    """What the file `path` says of itself; the images stay on the disk, unread.

    Raises:
        InputError: the file is missing, cut short, damaged, or not what `HDF5DatasetWriter` writes.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise InputError(f"data file {path} is missing; build the data set first")
    with open_sealed(path, DATA, spare=True) as (file, source, seal):
        try:
            parts = _read(file, images_key, seal)
        except ValueError as error:
            raise InputError(f"data file {path} is not one that this project wrote: {error}; build it again") from error
        return HDF5Dataset(path, os.dup(source.fileno()), **parts)


def _read(file: h5py.File, images_key: str, seal: Seal) -> dict:
    """All but path and descriptor of an `HDF5Dataset`, each part checked."""
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
        "images_sha256": images_sha256,
        "digest": digest.hexdigest(),
    }
