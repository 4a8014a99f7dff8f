"""Decode many image files on all cores."""

import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Self

import numpy as np

from pipeline.errors import InputError
from pipeline.io import workers
from pipeline.io.images import StrictDecoder, first_of

# Images per chunk, and chunks decoded ahead: 126 MB of 64x64 images.
_CHUNK = 64
_MAX_AHEAD = 160
_MAX_SHARED = 1 << 28  # bytes


class ImageReader:
    """Decode images in worker processes; a context manager.

    Threads would block each other: decoding an image of 64x64 pixels takes less time than handing over Python's
    interpreter lock a few times. The workers write to shared memory, and end with this process, however it ends. Each
    worker imports the main module, so create a reader there only below `if __name__ == "__main__":`.

    Args:
        shape: (height, width) that every image must have, in pixels.
        processes: number of workers; None for one per core.
    """

    def __init__(self, shape: tuple[int, int], processes: int | None = None) -> None:
        self.shape = shape
        chunk_bytes = _CHUNK * shape[0] * shape[1] * 3
        ring_shape = (max(1, min(_MAX_AHEAD, _MAX_SHARED // chunk_bytes)), _CHUNK, *shape, 3)
        descriptor = _unnamed_memory()
        try:
            os.ftruncate(descriptor, ring_shape[0] * chunk_bytes)
            self._ring = _ring(descriptor, ring_shape)
            self._workers = workers.start(_decode, [(ring_shape,)] * (processes or workers.cores()))
            for worker in self._workers:
                with worker.alive():
                    reduction.send_handle(worker.connection, descriptor, worker.process.pid)
        finally:
            os.close(descriptor)

    def read(self, paths: Sequence[str]) -> Iterator[np.ndarray]:
        """Yield the images at `paths`, in order, as uint8 BGR arrays (n, height, width, 3) of up to 64 images.

        Decoding starts at the call and runs ahead. An array is valid until the next one is taken. Take all arrays
        before the next call.

        Raises:
            InputError: `StrictDecoder` refuses an image; raised in place of the array with that image, after all others
                are decoded. The message has the number of other refused images.
        """
        chunks = -(-len(paths) // _CHUNK)
        for worker in self._workers:
            with worker.alive():
                worker.connection.send(paths)
        for chunk in range(min(chunks, len(self._ring))):
            self._request(chunk)
        return self._take(len(paths), chunks)

    def close(self) -> None:
        """End the workers and free the memory; arrays taken before become invalid."""
        for worker in self._workers:
            worker.connection.close()
        del self._ring

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def _worker(self, chunk: int) -> workers.Worker:
        return self._workers[chunk % len(self._workers)]

    def _request(self, chunk: int) -> None:
        with self._worker(chunk).alive():
            self._worker(chunk).connection.send(chunk)

    def _take(self, count: int, chunks: int) -> Iterator[np.ndarray]:
        refused = []
        for chunk in range(chunks):
            with self._worker(chunk).alive():
                refused += self._worker(chunk).connection.recv()
            if not refused:
                yield self._ring[chunk % len(self._ring), : min(_CHUNK, count - chunk * _CHUNK)]
            following = chunk + len(self._ring)
            if following < chunks:
                self._request(following)
        if refused:
            raise InputError(first_of(refused))


def check_images(paths: Sequence[str]) -> Iterator[tuple[int, ...] | str]:
    """Decode the images at `paths` on all cores; yield for each, in order, its shape or an error message."""
    cores = workers.cores()
    checkers = workers.start(_check, [()] * cores)
    for number, worker in enumerate(checkers):
        with worker.alive():
            worker.connection.send(paths[number::cores])
    for number in range(len(paths)):
        worker = checkers[number % cores]
        with worker.alive():
            yield worker.connection.recv()


def _ring(descriptor: int, shape: tuple[int, ...]) -> np.ndarray:
    """Map the shared memory `descriptor` as a uint8 array."""
    return np.frombuffer(mmap.mmap(descriptor, int(np.prod(shape))), np.uint8).reshape(shape)


def _unnamed_memory() -> int:
    """Return a descriptor of shared memory: no name to remove, and no size limit such as /dev/shm's in a container."""
    try:
        return os.memfd_create("images")
    except (AttributeError, OSError):  # not on this system
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())


def _check(connection: Connection) -> None:
    """Run a worker that checks images: receive a list of paths, send a shape or an error message for each."""
    decoder = StrictDecoder()
    try:
        paths = connection.recv()
    except (EOFError, OSError):  # the other end is closed
        os._exit(0)
    for path in paths:
        try:
            result = decoder.read(path).shape
        except InputError as refused:
            result = str(refused)
        try:
            connection.send(result)
        except OSError:  # the other end is closed
            os._exit(0)


def _decode(connection: Connection, ring_shape: tuple[int, ...]) -> None:
    """Run a worker that decodes images: receive shared memory, a list of paths, and numbers of chunks to decode.

    Sends a list of error messages for each chunk.
    """
    try:
        descriptor = reduction.recv_handle(connection)
    except (EOFError, OSError):  # the reader was closed already
        os._exit(0)
    ring = _ring(descriptor, ring_shape)
    os.close(descriptor)
    paths: Sequence[str] = ()
    decoder = StrictDecoder()
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):  # the other end is closed
            os._exit(0)
        if not isinstance(message, int):
            paths = message
            continue
        refused = []
        for position, path in enumerate(paths[message * _CHUNK : (message + 1) * _CHUNK]):
            try:
                ring[message % len(ring), position] = decoder.read(path, ring_shape[2:4])
            except InputError as error:
                refused.append(str(error))
        try:
            connection.send(refused)
        except OSError:
            os._exit(0)
