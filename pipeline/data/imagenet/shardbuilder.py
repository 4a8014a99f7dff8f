"""Build shards in worker processes: read each image, check it by decoding it, and store its file or a smaller copy."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np

from pipeline.data.imagenet.images import ImageFiles
from pipeline.errors import InputError
from pipeline.files.atomic import WriteError
from pipeline.files.regular import open_regular
from pipeline.io.images import StrictDecoder, decode_image
from pipeline.io.shards import ChannelSums, ShardWriter

# Quality 90, chroma subsampled by 2 in both directions.
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)
_MAX_SIDE = 65_500  # of libjpeg
# Number of images between two reports, and of pixels to sum at once.
_REPORT = 32
_BAND = 1 << 20


@dataclass(frozen=True)
class Task:
    """The content of a shard.

    Attributes:
        path: final name of the shard.
        files: label and image files of each class.
        classes: WordNet ids and words of all classes.
        number, count, total: number of the shard, number of shards and of images of the split.
        mark: mark of the seal.
    """

    path: Path
    files: list[tuple[int, ImageFiles]]
    classes: tuple[Sequence[str], Sequence[str]]
    number: int
    count: int
    total: int
    mark: bytes

    def __len__(self) -> int:
        return sum(len(files) for _, files in self.files)

    @property
    def encoded_bytes(self) -> int:
        """Number of bytes of all files."""
        return sum(int(files.lengths.sum()) for _, files in self.files)


@dataclass
class Result:
    """The result of a task.

    Attributes:
        task_path: final name of the shard.
        finished: temporary path of the complete shard, not flushed yet; None if there is none.
        sums: sums of the shard's pixels.
        refused: messages about images that can't be used.
        warnings: messages about images that were taken although the decoder warns.
        failure: message if the disk failed.
    """

    task_path: Path
    finished: Path | None = None
    sums: ChannelSums = field(default_factory=ChannelSums)
    refused: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    failure: str = ""


def work(connection: Connection, shorter_side: int | None, accept_warnings: bool) -> None:
    """Run a worker: receive tasks; for each, send numbers of images done since the last report, then a `Result`.

    For the other arguments see `pipeline.data.imagenet.build`.
    """

    def send(message: int | Result) -> None:
        try:
            connection.send(message)
        except OSError:  # the other end is closed
            os._exit(0)

    builder = _ShardBuilder(shorter_side, accept_warnings, send)
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):  # the other end is closed
            os._exit(0)
        send(builder.build(task))


class _WarnedError(ValueError):
    """The decoder warned about an image."""


class _ReadError(Exception):
    """The disk failed while an archive was read."""


class _ShardBuilder:
    def __init__(self, shorter_side: int | None, accept_warnings: bool, report: Callable[[int], None]) -> None:
        self._shorter_side = shorter_side
        self._accept_warnings = accept_warnings
        self._report = report
        self._decoder = StrictDecoder()
        self._sums = _Summer()
        self._archive: tuple[str | None, int] = (None, -1)

    def build(self, task: Task) -> Result:
        """Build a shard. All images are read and checked, even if one is refused."""
        result = Result(task.path)
        build = self._store if self._shorter_side is None else self._store_smaller
        try:
            result.finished = build(task, result)
        except InputError as error:
            result.refused.append(str(error))
        except _ReadError as error:
            result.failure = str(error)
        except OSError as error:
            # The size of copies isn't known.
            needed = task.encoded_bytes if self._shorter_side is None else None
            result.failure = str(WriteError(task.path, needed, error))
        return result

    def _store(self, task: Task, result: Result) -> Path | None:
        """Store the files as they are."""
        with ShardWriter(task.path, len(task), task.encoded_bytes) as writer:
            for file, size in self._images(task, result):
                writer.add(file, size)
            return None if result.refused else _finish(writer, task, result.sums)

    def _store_smaller(self, task: Task, result: Result) -> Path | None:
        """Store smaller copies. Their lengths are known only at the end, so they are collected in a file first."""
        ends, sizes = [0], []
        with tempfile.TemporaryFile(dir=task.path.parent) as copies:
            for file, size in self._images(task, result):
                copies.write(file)
                ends.append(copies.tell())
                sizes.append(size)
            if result.refused:
                return None
            copies.seek(0)
            with ShardWriter(task.path, len(task), ends[-1]) as writer:
                for (start, end), size in zip(pairwise(ends), sizes, strict=True):
                    writer.add(copies.read(end - start), size)
                return _finish(writer, task, result.sums)

    def _images(self, task: Task, result: Result) -> Iterator[tuple[bytes, tuple[int, int]]]:
        """Yield the file to store and its (height, width) for each image that isn't refused; add to the sums."""
        wordnet_ids, _ = task.classes
        entries = (
            (wordnet_ids[label], name, place)
            for label, files in task.files
            for name, place in zip(files.stored_names(), files.places(), strict=True)
        )
        done = 0
        for wordnet_id, stored_name, place in entries:
            path, offset, _ = place
            name = path if offset is None else f"{wordnet_id}/{stored_name} in {path}"
            try:
                file = self._read(*place)
                pixels = self._decode(file, name, result)
                if self._shorter_side is not None:
                    pixels = shrink(pixels, self._shorter_side)
                    file = _encode(pixels)
            except ValueError as error:
                # Without it, all later images would have another place, so it must be replaced.
                remedy = "replace it" if offset is None else "download the archive again"
                if isinstance(error, _WarnedError):
                    remedy = f"take it as it is with `accept_warnings`, or {remedy}"
                result.refused.append(f"image {name} {error}; {remedy}, and run the same command again")
            else:
                result.sums.add(self._sums(pixels))
                yield file, pixels.shape[:2]
            done += 1
            if done % _REPORT == 0:
                self._report(_REPORT)
        self._report(done % _REPORT)

    def _read(self, path: str, offset: int | None, length: int) -> bytes:
        if offset is None:
            try:
                descriptor = open_regular(path)
                try:
                    content = os.read(descriptor, length + 1)
                finally:
                    os.close(descriptor)
            except OSError as error:
                raise ValueError(f"can't be read: {error.strerror}") from error
        else:
            try:
                if self._archive[0] != path:
                    self._archive = path, open_regular(path)
                content = os.pread(self._archive[1], length, offset)
            except OSError as error:
                raise _ReadError(f"can't read {path}: {error.strerror or error}") from error
        if len(content) != length:
            raise ValueError("changed while it was read")
        return content

    def _decode(self, content: bytes, name: str, result: Result) -> np.ndarray:
        try:
            # Published figures ignore the orientation that EXIF gives.
            pixels = decode_image(content, oriented=False)
        finally:
            warning = self._decoder.take_warning()
        if warning and not self._accept_warnings:
            raise _WarnedError(f"is damaged: {warning}")
        if warning:
            result.warnings.append(f"image {name} is taken in spite of a warning: {warning}")
        return pixels


class _Summer:
    """Sum the pixels of images, a few rows at a time.

    The separated channels reuse memory: new pages would take longer than the sums.
    """

    def __init__(self) -> None:
        self._channels = np.empty((3, _BAND), np.uint8)

    def __call__(self, pixels: np.ndarray) -> ChannelSums:
        """Return the sums of an image, uint8 (height, width, 3), BGR."""
        height, width, _ = pixels.shape
        sums = ChannelSums()
        rows = max(1, _BAND // width)
        for start in range(0, height, rows):
            band = pixels[start : start + rows]
            size = band.shape[0] * width
            if size > self._channels.shape[1]:
                self._channels = np.empty((3, size), np.uint8)
            channels = [channel[:size].reshape(band.shape[:2]) for channel in self._channels]
            cv2.split(band, channels)
            channels.reverse()
            # Exact: integers below 2**53.
            values = [round(cv2.norm(channel, cv2.NORM_L1)) for channel in channels]
            squares = [round(cv2.norm(channel, cv2.NORM_L2SQR)) for channel in channels]
            sums.add(ChannelSums(size, values, squares))
        return sums


def shrink(pixels: np.ndarray, shorter_side: int) -> np.ndarray:
    """Resize an image so that its shorter side has `shorter_side` pixels; return it unchanged if it has no more."""
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    if shorter <= shorter_side:
        return pixels
    size = tuple((side * shorter_side + shorter // 2) // shorter for side in (width, height))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _encode(pixels: np.ndarray) -> bytes:
    """Encode an image as JPEG; raise `ValueError` if one of its sides is too long for that."""
    height, width = pixels.shape[:2]
    if max(height, width) > _MAX_SIDE:
        raise ValueError(f"becomes {width}x{height} pixels; expected at most {_MAX_SIDE:,} on a side for JPEG")
    return cv2.imencode(".jpg", pixels, _JPEG)[1].tobytes()


def _finish(writer: ShardWriter, task: Task, sums: ChannelSums) -> Path:
    labels = np.repeat([label for label, _ in task.files], [len(files) for _, files in task.files])
    names = [name.encode() for _, files in task.files for name in files.stored_names()]
    return writer.finish(labels, names, task.classes, (task.number, task.count, task.total), sums, task.mark)
