"""Decoding many image files on all cores."""

import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Self

import numpy as np

from pipeline.errors import InputError
from pipeline.io.images import StrictDecoder

# Images that a process decodes in a row, and such chunks that may be ahead of what is taken: together 126 MB of 64x64.
_CHUNK = 64
_MOST_AHEAD = 160
# Where Linux keeps shared memory: a container often has no more than 64 MB of it, and no error but a dead process shows
# that it is used up.
_SHARED = "/dev/shm"  # noqa: S108


class ImageReader:
    """Decodes images in processes of its own, one a core; a context manager.

    Threads would wait for each other: an image of 64x64 pixels decodes in less time than it takes to hand over Python's
    interpreter a few times. The processes write into memory that they share with this one, and end when it ends,
    however it ends.

    Args:
        shape: (height, width) that every image must have, in pixels.
        processes: their number; one a core if None.
    """

    def __init__(self, shape: tuple[int, int], processes: int | None = None) -> None:
        self.shape = shape
        ring_shape = (_chunks_ahead(shape), _CHUNK, *shape, 3)
        self._memory = SharedMemory(create=True, size=int(np.prod(ring_shape)))
        self._ring = np.ndarray(ring_shape, np.uint8, self._memory.buf)
        self._connections = _start(_decode, [(self._memory.name, ring_shape)] * (processes or _cores()))

    def read(self, paths: Sequence[str]) -> Iterator[np.ndarray]:
        """The images at `paths`, in order, in uint8 BGR arrays (n, height, width, 3) of a few dozen.

        Each array is valid until the next is taken. Decoding begins with the call and goes on ahead of what is taken.
        Take all before the next call.

        Raises:
            InputError: when an image is taken that `StrictDecoder` refuses.
        """
        chunks = -(-len(paths) // _CHUNK)
        with _alive():
            for connection in self._connections:
                connection.send(paths)
            for chunk in range(min(chunks, len(self._ring))):
                self._connection(chunk).send(chunk)
        return self._take(len(paths), chunks)

    def close(self) -> None:
        """End the processes and give back the memory; arrays that were taken are no longer valid."""
        for connection in self._connections:
            connection.close()
        del self._ring
        self._memory.close()
        self._memory.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def _connection(self, chunk: int) -> Connection:
        return self._connections[chunk % len(self._connections)]

    def _take(self, count: int, chunks: int) -> Iterator[np.ndarray]:
        for chunk in range(chunks):
            with _alive():
                error = self._connection(chunk).recv()
            if error is not None:
                raise InputError(error)
            yield self._ring[chunk % len(self._ring), : min(_CHUNK, count - chunk * _CHUNK)]
            following = chunk + len(self._ring)
            if following < chunks:
                with _alive():
                    self._connection(following).send(following)


def check_images(paths: Sequence[str]) -> Iterator[tuple[int, ...] | str]:
    """For each image at `paths`, in order: its shape, or what is wrong with it. Decodes on all cores."""
    cores = _cores()
    connections = _start(_check, [(paths[number::cores],) for number in range(cores)])
    for number in range(len(paths)):
        with _alive():
            yield connections[number % cores].recv()


def _start(target: Callable, arguments: Sequence[tuple]) -> list[Connection]:
    """Start a process for each of `arguments` that runs `target(connection, *arguments)`; return our ends of those."""
    context = multiprocessing.get_context("spawn")
    connections = []
    # A blocked signal stays blocked in a child: Ctrl+C, which reaches them too, is this process's to answer.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for own in arguments:
            connection, other_end = context.Pipe()
            context.Process(target=target, args=(other_end, *own), daemon=True).start()
            other_end.close()
            connections.append(connection)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return connections


@contextmanager
def _alive() -> Iterator[None]:
    """Says what it means that the other end of a connection is gone."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise OSError("a process that decodes images has died; is there enough memory, in /dev/shm too?") from error


def _chunks_ahead(shape: tuple[int, int]) -> int:
    """As many as fit into half of the shared memory that is free."""
    free = shutil.disk_usage(_SHARED).free if os.path.isdir(_SHARED) else sys.maxsize
    return max(1, min(_MOST_AHEAD, free // 2 // (_CHUNK * shape[0] * shape[1] * 3)))


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(connection: Connection, paths: Sequence[str]) -> None:
    """What a process does that checks images: answers for each of `paths`, in order."""
    decoder = StrictDecoder()
    for path in paths:
        try:
            result = decoder.read(path).shape
        except InputError as refused:
            result = str(refused)
        try:
            connection.send(result)
        except OSError:  # the other end is closed
            os._exit(0)


def _decode(connection: Connection, memory_name: str, ring_shape: tuple[int, ...]) -> None:
    """What a process does: takes a list of paths, then numbers of chunks of it; answers each with None or an error."""
    try:
        memory = SharedMemory(memory_name)
    except FileNotFoundError:  # closed before this process had started
        os._exit(0)
    ring = np.ndarray(ring_shape, np.uint8, memory.buf)
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
        error = None
        try:
            for place, path in enumerate(paths[message * _CHUNK : (message + 1) * _CHUNK]):
                ring[message % len(ring), place] = decoder.read(path, ring_shape[2:4])
        except InputError as refused:
            error = str(refused)
        try:
            connection.send(error)
        except OSError:
            os._exit(0)
