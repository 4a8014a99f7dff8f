"""The format of shards: HDF5 files of a split whose images are stored as JPEG or PNG files, not decoded.

A split's images are ordered by class and file name. Image i of a split in S shards is row i // S of shard i % S, so the
order of the images doesn't depend on S, and each shard has images of all classes. The file SPLIT-SSS-of-SSS.hdf5 holds:

    bytes 0-511   the seal (see `pipeline.files.sealed`); its two numbers are the offset and size of the encoded images
                  in bytes, which its digest omits; its mark is a digest of what the shard was built from
    encoded       uint8 (m,), the image files one after the other; its attribute `sha256` is their digest
    offsets       int64 (n + 1,): image r is encoded[offsets[r]:offsets[r + 1]]
    crc32         uint32 (n,), of each image file
    labels        int64 (n,), 0 to classes - 1, ascending
    sizes         int32 (n, 2), height and width of each image in pixels
    names         bytes (n,), UTF-8, file names, ascending within a class
    label_names   bytes (classes,), UTF-8, ascending: the WordNet ids of the classes
    words         bytes (classes,), UTF-8, readable names of the classes

Attributes of the file, uint64 but for the last: `shard`, its number; `shards` and `images` of the split; `channel_sums`
and `channel_squares` (3,), sums over all pixels of the shard for R, G and B; `complete`, true.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from pipeline import MAX_IMAGE_PIXELS
from pipeline.errors import InputError
from pipeline.files.hdf5 import (
    MAX_TEXT,
    check_attributes,
    check_disjoint,
    check_members,
    count_attribute,
    dataset_of,
    flag_attribute,
    text_attribute,
)
from pipeline.files.sealed import FileFormat, Seal
from pipeline.io.images import MAX_BYTES

SHARD = FileFormat(b"ResNet shard 1\n", "shard", "remove the shard, and run the build again")
MAX_SHARDS = 256
"""Maximum number of shards of a split: each is an open file."""

_MAX_IMAGES = 1 << 24
_MAX_CLASSES = 1 << 16
# Maximum size in bytes of HDF5's metadata, which needs a few kilobytes, and of all datasets but the images: ImageNet's
# training images in one shard need 80 MB.
_MAX_OVERHEAD = 1 << 20
_MAX_OTHERS = 1 << 28
# Number of texts to check at once.
_ROWS = 1 << 12
_COUNTS = {"shard": (), "shards": (), "images": (), "channel_sums": (3,), "channel_squares": (3,)}
_NAME = re.compile(r"(?P<split>train|val)-(?P<number>[0-9]{3})-of-(?P<count>[0-9]{3})\.hdf5")


@dataclass
class ChannelSums:
    """The number of pixels, and for R, G and B the sums of the values, 0 to 255, and of their squares.

    They are integers of any size, so that they are exact, and the order of the pixels doesn't matter.
    """

    pixels: int = 0
    values: Sequence[int] = (0, 0, 0)
    squares: Sequence[int] = (0, 0, 0)

    def add(self, other: "ChannelSums") -> None:
        """Add the pixels of `other`."""
        self.pixels += other.pixels
        self.values = [one + another for one, another in zip(self.values, other.values, strict=True)]
        self.squares = [one + another for one, another in zip(self.squares, other.squares, strict=True)]


def mean_and_deviation(parts: Iterable[ChannelSums]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of R, G and B, 0 to 255, over all pixels of `parts`."""
    sums = ChannelSums()
    for part in parts:
        sums.add(part)
    mean = [value / sums.pixels for value in sums.values]
    deviation = [
        math.sqrt((sums.pixels * square - value**2) / sums.pixels**2)
        for value, square in zip(sums.values, sums.squares, strict=True)
    ]
    return mean, deviation


def shard_name(split: str, number: int, count: int) -> str:
    """Return the file name of shard `number`, from 0, of `count`."""
    return f"{split}-{number:03}-of-{count:03}.hdf5"


def find_shards(folder: Path) -> dict[Path, re.Match]:
    """Return the files in `folder` that are named like shards, sorted, with their split, number and count."""
    found = {path: _NAME.fullmatch(path.name) for path in sorted(folder.iterdir())}
    return {path: match for path, match in found.items() if match}


def read_parts(file: h5py.File, seal: Seal) -> dict:
    """Read and check everything in a shard but the images.

    Raises:
        InputError: the file isn't one that this project writes.
    """
    if not flag_attribute(file, "complete"):
        raise InputError("it is not marked complete")
    check_members(
        file,
        dict.fromkeys(("encoded", "offsets", "crc32", "labels", "sizes", "names", "label_names", "words")),
    )
    encoded = dataset_of(file, "encoded", ["u1"], (None,))
    if seal.numbers != (encoded.id.get_offset(), encoded.size):
        found = encoded.id.get_offset(), encoded.size
        raise InputError(f"its seal gives {seal.numbers} as offset and size of the images; its dataset has {found}")
    crc32 = dataset_of(file, "crc32", ["<u4"], (None,))
    if len(crc32) > _MAX_IMAGES:
        raise InputError(f"it holds {len(crc32):,} images; expected at most {_MAX_IMAGES:,}")
    count = len(crc32)
    label_names = dataset_of(file, "label_names", ["S"], (None,))
    if len(label_names) > _MAX_CLASSES:
        raise InputError(f"it names {len(label_names):,} classes; expected at most {_MAX_CLASSES:,}")
    datasets = {
        "offsets": dataset_of(file, "offsets", ["<i8"], (count + 1,)),
        "crc32": crc32,
        "labels": dataset_of(file, "labels", ["<i8"], (count,)),
        "sizes": dataset_of(file, "sizes", ["<i4"], (count, 2)),
        "names": dataset_of(file, "names", ["S"], (count,)),
        "label_names": label_names,
        "words": dataset_of(file, "words", ["S"], (len(label_names),)),
    }
    check_disjoint([encoded, *datasets.values()])
    others = sum(dataset.nbytes for dataset in datasets.values())
    if others > _MAX_OTHERS:
        raise InputError(f"it has {others:,} bytes beside the images; expected at most {_MAX_OTHERS:,}")
    expected = encoded.size + others + _MAX_OVERHEAD
    if seal.length > expected:
        raise InputError(f"it has {seal.length:,} bytes; expected at most {expected:,} for its datasets")
    check_attributes(file, ["complete", *_COUNTS])
    check_attributes(encoded, ["sha256"])
    for dataset in datasets.values():
        check_attributes(dataset)
    parts = {name: dataset[()] for name, dataset in datasets.items()}
    counts = {name: count_attribute(file, name, shape) for name, shape in _COUNTS.items()}
    for name in ("label_names", "words"):
        check_texts(name, parts[name])
        parts[name] = tuple(text.decode() for text in parts[name].tolist())
    _check_images(parts, encoded.size)
    _check_order(parts)
    _check_counts(parts, counts)
    return parts | {
        "number": int(counts["shard"]),
        "count": int(counts["shards"]),
        "total": int(counts["images"]),
        "sums": _check_sums(parts, counts),
        "start": encoded.id.get_offset(),
        "sha256": text_attribute(encoded, "sha256", 64),
    }


def _check_images(parts: dict, encoded_bytes: int) -> None:
    """Check offsets and sizes of the images."""
    offsets, sizes = parts["offsets"], parts["sizes"]
    if offsets[0] != 0 or offsets[-1] != encoded_bytes:
        raise InputError(f"its offsets go from {offsets[0]} to {offsets[-1]}; expected 0 to {encoded_bytes}")
    # Compared before they are subtracted, which could overflow.
    if wrong := np.flatnonzero(offsets[1:] <= offsets[:-1]).tolist():
        raise InputError(f"its offsets don't ascend at row {wrong[0]}")
    if wrong := np.flatnonzero(np.diff(offsets) > MAX_BYTES).tolist():
        raise InputError(f"the image in row {wrong[0]} has more than {MAX_BYTES:,} bytes")
    pixels = sizes.prod(axis=1, dtype=np.int64)
    if wrong := np.flatnonzero((sizes < 1).any(axis=1) | (pixels > MAX_IMAGE_PIXELS)).tolist():
        height, width = sizes[wrong[0]]
        raise InputError(
            f"the image in row {wrong[0]} is {width}x{height} pixels; expected at most {MAX_IMAGE_PIXELS:,}"
        )


def _check_order(parts: dict) -> None:
    """Check labels and names, and their order."""
    labels, names, label_names = parts["labels"], parts["names"], parts["label_names"]
    if list(label_names) != sorted(set(label_names)):
        raise InputError("its label_names are not in order, or repeated")
    if labels[0] < 0 or labels[-1] >= len(label_names) or (labels[1:] < labels[:-1]).any():
        raise InputError(f"its labels don't ascend from 0 to {len(label_names) - 1}")
    check_texts("names", names)
    if ((labels[1:] == labels[:-1]) & (names[1:] <= names[:-1])).any():
        raise InputError("its names are not in order, or repeated")


def _check_counts(parts: dict, counts: dict) -> None:
    """Check the number of images."""
    shard, shards, images = (int(counts[name]) for name in ("shard", "shards", "images"))
    if not 0 <= shard < shards <= MAX_SHARDS or images > _MAX_IMAGES * MAX_SHARDS:
        raise InputError(f"it is shard {shard} of {shards}, of {images:,} images; expected at most {MAX_SHARDS} shards")
    if len(parts["labels"]) != len(range(shard, images, shards)):
        raise InputError(
            f"it holds {len(parts['labels']):,} images; expected {len(range(shard, images, shards)):,}, as shard "
            f"{shard} of {shards}, of {images:,} images"
        )


def _check_sums(parts: dict, counts: dict) -> ChannelSums:
    """Return the sums over the pixels, after checking that they are possible."""
    pixels = int(parts["sizes"].prod(axis=1, dtype=np.int64).sum())
    sums = ChannelSums(pixels, counts["channel_sums"].tolist(), counts["channel_squares"].tolist())
    for value, square in zip(sums.values, sums.squares, strict=True):
        # No value is above 255, and the variance isn't negative.
        if value > 255 * pixels or square > 255 * value or value**2 > pixels * square:
            raise InputError(f"its channel_sums and channel_squares are not those of {pixels:,} pixels")
    return sums


def check_texts(key: str, values: np.ndarray) -> None:
    """Raise `InputError`, with `key`, unless all `values`, bytes (n,), are printable UTF-8 texts.

    Nearly all are ASCII, which NumPy checks at once, in blocks, because it takes several times their memory.
    """
    for start in range(0, len(values), _ROWS):
        block = values[start : start + _ROWS]
        letters = block.view(np.uint8).reshape(len(block), -1)
        is_end = letters == 0  # texts are padded with zeros
        is_plain = (((letters >= 0x20) & (letters < 0x7F)) | is_end).all(axis=1)
        is_plain &= ~is_end[:, 0] & ~(is_end[:, :-1] & ~is_end[:, 1:]).any(axis=1)
        for value in block[~is_plain]:
            text = value.decode()
            if not text or not text.isprintable():
                raise InputError(f"{key} holds {text!a:.100}; expected printable text")
    if values.dtype.itemsize > MAX_TEXT:
        raise InputError(f"{key} has texts of {values.dtype.itemsize:,} bytes; expected at most {MAX_TEXT:,}")
