"""The HDF5 file of one split of a data set, as `HDF5DatasetWriter` writes it.

    images        uint8 (n, height, width, channels), one contiguous unfiltered block, so that a row has a fixed place
    labels        int64 (n,), 0 to classes - 1
    label_names   bytes (classes,), the name that stands for each label in the source
    words         bytes (classes,), UTF-8, what the class is called; optional

Each carries its SHA-256 as the attribute `sha256`; the attribute `complete` of the file is written last.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from pipeline.errors import InputError


@dataclass(frozen=True)
class HDF5Dataset:
    """All of a file but its images: those lie at `offset`, in bytes, row after row, of `shape` in all."""

    path: Path
    offset: int
    shape: tuple[int, int, int, int]
    labels: np.ndarray
    label_names: tuple[str, ...]
    words: tuple[str, ...]
    digest: str


def sha256(array: np.ndarray) -> str:
    """The digest of an array's values, in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def read_hdf5_dataset(path: str | os.PathLike, images_key: str = "images") -> HDF5Dataset:
    """What the file `path` says of itself; the images stay on the disk, unread.

    Raises:
        InputError: the file is missing, cut short, damaged, or not what `HDF5DatasetWriter` writes.
    """
    path = Path(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if not path.exists():
            raise InputError(f"data file {path} is missing; build the data set first") from error
        raise InputError(f"{path} is no HDF5 file, or is cut short or damaged: {_first_line(error)}") from error
    with file:
        try:
            return _read(path, file, images_key)
        except InputError:
            raise
        except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # whatever h5py makes of damage
            raise InputError(f"data file {path} is damaged: {_first_line(error)}; build it again") from error


def _read(path: Path, file: h5py.File, images_key: str) -> HDF5Dataset:
    if not file.attrs.get("complete"):
        raise InputError(f"data file {path} is not marked complete; build it again")
    images = _dataset(path, file, images_key, "u", 4)
    if images.dtype != np.uint8 or 0 in images.shape:
        raise InputError(f"data file {path}: {images_key} is {images.dtype} {images.shape}; expected uint8 images")
    size = images.size
    offset = images.id.get_offset()
    if images.chunks is not None or images.external or offset is None or images.id.get_storage_size() != size:
        raise InputError(f"data file {path}: {images_key} is not one contiguous block; build it again")
    if path.stat().st_size < offset + size:
        raise InputError(f"data file {path} is cut short; build it again")

    labels = _dataset(path, file, "labels", "iu", 1)
    if labels.shape != images.shape[:1]:
        raise InputError(f"data file {path} holds {len(labels)} labels of {len(images)} images; build it again")
    names = {}
    for key in ("label_names", "words"):
        if key in file:
            names[key] = _checked(path, _dataset(path, file, key, "S", 1))
    digest = hashlib.sha256(repr(images.shape).encode())
    for dataset in (images, labels, *(file[key] for key in names)):
        digest.update(str(dataset.attrs["sha256"]).encode())
    values = _checked(path, labels).astype(np.int64)
    label_names, words = (tuple(name.decode() for name in names.get(key, ())) for key in ("label_names", "words"))
    if values.min() < 0 or (label_names and values.max() >= len(label_names)):
        expected = f"0 to {len(label_names) - 1}" if label_names else "at least 0"
        raise InputError(f"data file {path} holds labels from {values.min()} to {values.max()}; expected {expected}")
    return HDF5Dataset(path, offset, images.shape, values, label_names, words, digest.hexdigest())


def _dataset(path: Path, file: h5py.File, key: str, kinds: str, dimensions: int) -> h5py.Dataset:
    # A link could lead out of this file.
    dataset = file.get(key) if isinstance(file.get(key, getlink=True), h5py.HardLink) else None
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"data file {path} lacks {key}; expected a file that the dataset build wrote")
    if dataset.dtype.kind not in kinds or dataset.ndim != dimensions:
        raise InputError(f"data file {path}: {key} is {dataset.dtype} {dataset.shape}, which the build never writes")
    return dataset


def _checked(path: Path, dataset: h5py.Dataset) -> np.ndarray:
    values = dataset[()]
    if sha256(values) != dataset.attrs["sha256"]:
        key = dataset.name.removeprefix("/")
        raise InputError(f"data file {path} is damaged: the digest of {key} differs; build it again")
    return values


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
