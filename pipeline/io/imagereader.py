"""Decoding many image files on all cores."""

import mmap
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import reduction, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Self

import numpy as np

from pipeline.errors import InputError
from pipeline.io.images import StrictDecoder, first_of
from pipeline.utils.signals import STOPS

# Images that a process decodes in a row, and such chunks that may be ahead of what is taken: together 126 MB of 64x64.
_CHUNK = 64
_MAX_AHEAD = 160
_MAX_SHARED = 1 << 28  # bytes


class ImageReader:
    """Decodes images in processes of its own, one a core; a context manager.

    Threads would wait for each other: an image of 64x64 pixels decodes in less time than it takes to hand over Python's
    interpreter a few times. The processes write into memory that they share with this one, and end when it ends,
    however it ends. As everything that starts Python processes, it belongs below `if __name__ == "__main__":` in a
    program's main module, which each process imports.

    Args:
        shape: (height, width) that every image must have, in pixels.
        processes: their number; one a core if None.
    """

    def __init__(self, shape: tuple[int, int], processes: int | None = None) -> None:
        self.shape = shape
        chunk_bytes = _CHUNK * shape[0] * shape[1] * 3
        ring_shape = (max(1, min(_MAX_AHEAD, _MAX_SHARED // chunk_bytes)), _CHUNK, *shape, 3)
        descriptor = _unnamed_memory()
        try:
            os.ftruncate(descriptor, ring_shape[0] * chunk_bytes)
            self._ring = _ring(descriptor, ring_shape)
            self._workers = _start(_decode, [(ring_shape,)] * (processes or _cores()))
            for worker in self._workers:
                with worker.alive():
                    reduction.send_handle(worker.connection, descriptor, worker.process.pid)
        finally:
            os.close(descriptor)

    def read(self, paths: Sequence[str]) -> Iterator[np.ndarray]:
        """The images at `paths`, in order, in uint8 BGR arrays (n, height, width, 3) of a few dozen.

        Each array is valid until the next is taken. Decoding begins with the call and goes on ahead of what is taken.
        Take all before the next call.

        Raises:
            InputError: when all has been taken that comes before an image that `StrictDecoder` refuses; it says how
                many more are refused.
        """
        chunks = -(-len(paths) // _CHUNK)
        for worker in self._workers:
            with worker.alive():
                worker.connection.send(paths)
        for chunk in range(min(chunks, len(self._ring))):
            self._ask_for(chunk)
        return self._take(len(paths), chunks)

    def close(self) -> None:
        """End the processes and give back the memory; arrays that were taken are no longer valid."""
        for worker in self._workers:
            worker.connection.close()
        del self._ring

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def _worker(self, chunk: int) -> "_Worker":
        return self._workers[chunk % len(self._workers)]

    def _ask_for(self, chunk: int) -> None:
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
                self._ask_for(following)
        if refused:
            raise InputError(first_of(refused))


@dataclass(frozen=True)
class _Worker:
    """A process, and our end of the connection to it."""

    process: BaseProcess
    connection: Connection

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Says what it means that the other end of the connection is gone."""
        try:
            yield
        except (EOFError, ConnectionError) as error:
            self.process.join(5)
            code = self.process.exitcode
            reason = {
                -signal.SIGKILL: "killed: is there enough memory?",
                1: 'see above; a main module must call this below if __name__ == "__main__":',
            }.get(code, f"exit code {code}")
            raise OSError(f"a process that decodes images has died, {reason}") from error


def check_images(paths: Sequence[str]) -> Iterator[tuple[int, ...] | str]:
    """For each image at `paths`, in order: its shape, or what is wrong with it. Decodes on all cores."""
    cores = _cores()
    workers = _start(_check, [()] * cores)
    for number, worker in enumerate(workers):
        with worker.alive():
            worker.connection.send(paths[number::cores])
    for number in range(len(paths)):
        worker = workers[number % cores]
        with worker.alive():
            yield worker.connection.recv()


def _start(target: Callable, arguments: Sequence[tuple]) -> list[_Worker]:
    """Start a process for each of `arguments` that runs `target(connection, *arguments)`."""
    context = multiprocessing.get_context("spawn")
    workers = []
    # It would let signals through again once it starts, with the first process.
    resource_tracker.ensure_running()
    # A blocked signal stays blocked in a child: what asks all processes to end is this one's to answer. By SIGTERM it
    # ends them itself.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*STOPS} - {signal.SIGTERM})
    try:
        for own in arguments:
            connection, other_end = context.Pipe()
            process = context.Process(target=target, args=(other_end, *own), daemon=True)
            process.start()
            other_end.close()
            workers.append(_Worker(process, connection))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return workers


def _ring(descriptor: int, shape: tuple[int, ...]) -> np.ndarray:
    """The shared memory behind `descriptor` as a uint8 array."""
    return np.frombuffer(mmap.mmap(descriptor, int(np.prod(shape))), np.uint8).reshape(shape)


def _unnamed_memory() -> int:
    """A descriptor of memory to share, without a name to clear up, or a limit as that of /dev/shm in a container."""
    try:
        return os.memfd_create("images")
    except (AttributeError, OSError):  # not on this system
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(connection: Connection) -> None:
    """What a process does that checks images: takes a list of paths, and answers for each, in order."""
    decoder = StrictDecoder()
    for path in connection.recv():
        try:
            result = decoder.read(path).shape
        except InputError as refused:
            result = str(refused)
        try:
            connection.send(result)
        except OSError:  # the other end is closed
            os._exit(0)


def _decode(connection: Connection, ring_shape: tuple[int, ...]) -> None:
    """What a process does: takes the shared memory and a list of paths, then numbers of chunks of it.

    Answers each with what is wrong with each image of the chunk that isn't sound.
    """
    try:
        descriptor = reduction.recv_handle(connection)
    except (EOFError, OSError):  # closed before this process had started
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
        for place, path in enumerate(paths[message * _CHUNK : (message + 1) * _CHUNK]):
            try:
                ring[message % len(ring), place] = decoder.read(path, ring_shape[2:4])
            except InputError as error:
                refused.append(str(error))
        try:
            connection.send(refused)
        except OSError:
            os._exit(0)
