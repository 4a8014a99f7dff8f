"""Read shards, the files of encoded images (see `pipeline.io.shards.format`)."""

import hashlib
import os
import weakref
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from pipeline.errors import InputError, as_input_error
from pipeline.files.imageheader import Frame, Header, read_frame, read_header
from pipeline.files.sealed import open_sealed
from pipeline.io.shards.format import SHARD, find_shards, read_parts, shard_name


class Shard:
    """The encoded images of one shard, read on demand, from several threads at once.

    Attributes:
        number, count, total: number of the shard, number of shards and of images of the split.
        labels, sizes, lengths, crc32: label, (height, width), number of bytes, and checksum of each image.
        names: file name of each image, as UTF-8 bytes.
        label_names, words: names of the classes.
        sums: `ChannelSums` of all pixels.

    Raises:
        InputError: (a `ValueError`) the file is missing, truncated, damaged, or not a shard.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_sealed(path, SHARD, skip_numbered=True) as (file, source, seal):
            with as_input_error(ValueError, f"shard {path} was not written by this project: ", f"; {SHARD.remedy}"):
                parts = read_parts(file, seal)
            self._descriptor = os.dup(source.fileno())
        self._close_file = weakref.finalize(self, os.close, self._descriptor)
        self.number, self.count, self.total = parts["number"], parts["count"], parts["total"]
        self.labels, self.sizes, self.crc32 = parts["labels"], parts["sizes"], parts["crc32"]
        self.names, self.label_names, self.words = parts["names"], parts["label_names"], parts["words"]
        self.sums, self._sha256 = parts["sums"], parts["sha256"]
        self.lengths, self._starts = np.diff(parts["offsets"]), parts["start"] + parts["offsets"][:-1]

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, row: int) -> str:
        """Return the class and file name of the image at `row`."""
        return f"{self.label_names[self.labels[row]]}/{self.names[row].decode()}"

    def encoded(self, row: int) -> bytes:
        """Return the file of the image at `row`, JPEG or PNG; for errors see `image`."""
        return self.image(row)[0]

    def image(self, row: int) -> tuple[bytes, Frame | Header]:
        """Return the file of the image at `row`, JPEG or PNG, and its frame, or its header if it has none.

        Raises:
            InputError: it is damaged, or isn't an image of the size that the shard gives.
            OSError: the disk fails.
        """
        try:
            content = os.pread(self._descriptor, int(self.lengths[row]), int(self._starts[row]))
        except OSError as error:
            raise OSError(f"can't read shard {self.path}: {error.strerror or error}") from error
        return content, self._checked(row, content, lambda content: read_frame(content) or read_header(content))

    def check(self, advance: Callable[[int], None]) -> Iterator[str]:
        """Read all images; yield a message for each damaged one. Call `advance` with the number of bytes of each."""
        digest, sound = hashlib.sha256(), True
        for row in range(len(self)):
            content = os.pread(self._descriptor, int(self.lengths[row]), int(self._starts[row]))
            digest.update(content)
            try:
                self._checked(row, content, read_header)
            except InputError as error:
                sound = False
                yield str(error)
            advance(len(content))
        if sound and digest.hexdigest() != self._sha256:
            yield str(SHARD.damaged(self.path, "the digest of its images differs"))

    def close(self) -> None:
        """Close the file; the images can't be read afterwards."""
        self._close_file()

    def _checked(self, row: int, content: bytes, read: Callable[[bytes], Frame | Header]) -> Frame | Header:
        """Return what `read` finds in `content`; raise `InputError` if it isn't the image at `row`."""
        height, width = self.sizes[row].tolist()
        if len(content) < self.lengths[row]:
            fault = "it is truncated"
        elif zlib.crc32(content) != self.crc32[row]:
            fault = "its CRC-32 checksum differs"
        else:
            try:
                header = read(content)
            except ValueError as error:
                fault = f"it {error}"
            else:
                if (header.height, header.width) == (height, width):
                    return header
                fault = f"it is {header.width}x{header.height} pixels; expected {width}x{height}"
        raise InputError(f"shard {self.path}: image {self.name(row)} in row {row} is damaged: {fault}; {SHARD.remedy}")


class Shards:
    """The encoded images of a split, in all its shards.

    Attributes:
        shards: the shards in order.
        labels: label of each image, int64 (n,).
        label_names, words: names of the classes.

    Raises:
        InputError: (a `ValueError`) a shard is missing or unusable, or the shards don't belong together.
    """

    def __init__(self, folder: Path, split: str) -> None:
        if not folder.exists():
            raise InputError(f"folder {folder} is missing; build the data set first")
        with as_input_error(OSError, f"can't list folder {folder}: "):
            paths = {path: match for path, match in find_shards(folder).items() if match["split"] == split}
        counts = sorted({int(match["count"]) for match in paths.values()})
        if not counts:
            raise InputError(f"folder {folder} holds no {split} shards; build the data set first")
        if len(counts) > 1:
            builds = " and of ".join(map(str, counts))
            raise InputError(
                f"folder {folder} holds {split} shards of several builds, of {builds}; run the build again"
            )
        names = [shard_name(split, number, *counts) for number in range(*counts)]
        if missing := [name for name in names if folder / name not in paths]:
            number = f"{len(missing)} of {len(names)} {split} shards, the first"
            raise InputError(f"folder {folder} lacks {number} {missing[0]}; run the build again")
        self.shards = [Shard(path) for path in paths]
        first = self.shards[0]
        for number, shard in enumerate(self.shards):
            if (shard.number, shard.count) != (number, *counts):
                raise InputError(
                    f"shard {shard.path} is number {shard.number} of {shard.count}; expected {number} of {counts[0]}"
                )
            for part in ("total", "label_names", "words"):
                if getattr(shard, part) != getattr(first, part):
                    raise InputError(f"shards {first.path} and {shard.path} are of different builds; {SHARD.remedy}")
        self.label_names, self.words = first.label_names, first.words
        self.labels = self._interleaved("labels")

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, index: int) -> bytes:
        """Return the file of image `index`; see `Shard.encoded`."""
        row, number = divmod(index, len(self.shards))
        return self.shards[number].encoded(row)

    def image(self, index: int) -> tuple[bytes, Frame | Header]:
        """Return the file of image `index`, and its frame or header; see `Shard.image`."""
        row, number = divmod(index, len(self.shards))
        return self.shards[number].image(row)

    def describe(self, index: int) -> str:
        """Return the shard, name and row of image `index`, for messages."""
        row, number = divmod(index, len(self.shards))
        shard = self.shards[number]
        return f"shard {shard.path}: image {shard.name(row)} in row {row}"

    def digest(self) -> str:
        """Return the SHA-256 of classes, labels, file names, lengths and CRC-32 checksums, in hexadecimal.

        It doesn't depend on the number of shards, nor on the words of the classes.
        """
        digest = hashlib.sha256(repr((len(self), self.label_names)).encode())
        digest.update(self.labels.astype("<i8").data)
        digest.update(b"\0".join(self._interleaved("names").tolist()))
        digest.update(self._interleaved("lengths").astype("<i8").data)
        digest.update(self._interleaved("crc32").astype("<u4").data)
        return digest.hexdigest()

    def close(self) -> None:
        """Close all files; the images can't be read afterwards."""
        for shard in self.shards:
            shard.close()

    def _interleaved(self, part: str) -> np.ndarray:
        """Return an array of all shards, in the order of the images."""
        parts = [getattr(shard, part) for shard in self.shards]
        joined = np.empty(self.shards[0].total, np.result_type(*parts))
        for number, values in enumerate(parts):
            joined[number :: len(parts)] = values
        return joined
