"""Write shards (see `pipeline.io.shards.format`)."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from pipeline.files.blockwriter import BlockWriter
from pipeline.io.shards.format import SHARD, ChannelSums, check_texts


class ShardWriter:
    """Write a shard under a temporary name, image by image; a context manager, which removes what isn't finished.

    Args:
        path: final name of the shard; its folder must exist.
        count: number of images.
        encoded_bytes: number of bytes of all image files together.

    Raises:
        OSError: the disk is full or fails.
    """

    def __init__(self, path: Path, count: int, encoded_bytes: int) -> None:
        self._block = BlockWriter(path, SHARD, "encoded", (encoded_bytes,))
        self._added = 0
        self._offsets = np.zeros(count + 1, "<i8")
        self._crc32 = np.zeros(count, "<u4")
        self._sizes = np.zeros((count, 2), "<i4")
        self._is_finished = False

    def add(self, encoded: bytes, size: tuple[int, int]) -> None:
        """Append an image: its file, and its `size` (height, width) in pixels."""
        self._block.write(encoded)
        self._crc32[self._added] = zlib.crc32(encoded)
        self._sizes[self._added] = size
        self._added += 1
        self._offsets[self._added] = self._block.written

    def finish(
        self,
        labels: np.ndarray,
        names: Sequence[bytes],
        classes: tuple[Sequence[str], Sequence[str]],
        place: tuple[int, int, int],
        sums: ChannelSums,
        mark: bytes,
    ) -> Path:
        """Complete the file; return its temporary path. The caller flushes and renames it.

        Args:
            labels, names: label and file name of each image.
            classes: the WordNet ids of all classes in order, and their words.
            place: number of the shard, number of shards and of images of the split.
            sums: sums of all pixels.
            mark: 32 bytes for the seal.

        Raises:
            InputError: a name can't be stored.
        """
        texts = {"names": names}
        texts |= zip(("label_names", "words"), ([name.encode() for name in names] for names in classes), strict=True)
        arrays = {name: np.array(values) for name, values in texts.items()}
        for name, values in arrays.items():
            check_texts(name, values)
        arrays |= {"labels": np.asarray(labels, "<i8")}
        arrays |= {"offsets": self._offsets, "crc32": self._crc32, "sizes": self._sizes}
        for name, values in arrays.items():
            self._block.store(name, values)
        numbers = dict(zip(("shard", "shards", "images"), place, strict=True))
        numbers |= {"channel_sums": sums.values, "channel_squares": sums.squares}
        attributes = {name: np.array(value, np.uint64) for name, value in numbers.items()}
        finished = self._block.finish(attributes, mark)
        self._is_finished = True
        return finished

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error) -> None:
        if not self._is_finished:
            self._block.discard()
