"""Image files, read whole or refused."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from os import PathLike
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import InputError

# What a whole file of each format starts and ends with, save for a few bytes that some programs add at the end. OpenCV
# decodes a truncated one without complaint.
_MARKS = ((b"\xff\xd8\xff", b"\xff\xd9"), (b"\x89PNG\r\n\x1a\n", b"IEND\xae\x42\x60\x82"))
_TRAILER = 64
# Bytes that hold most small images whole.
_BLOCK = 1 << 14
# Images that one thread decodes in a row.
_CHUNK = 64
# Such runs that may wait to be taken: 160 of them hold 126 MB of 64x64 images.
_AHEAD = 160


def read_image(path: str | PathLike, shape: tuple[int, int] | None = None) -> np.ndarray:
    """The pixels of a JPEG or PNG file, uint8 (height, width, 3), BGR; grayscale becomes three equal channels.

    Args:
        path: the file.
        shape: the (height, width) that the image must have, or None for any.

    Raises:
        InputError: the file can't be read, is neither JPEG nor PNG, is cut short, doesn't decode, or has another size.
    """
    content = _read_file(path)
    if not any(content.startswith(start) for start, _ in _MARKS):
        raise InputError(f"{path} is neither JPEG nor PNG; remove or replace it")
    if not any(content.startswith(start) and end in content[-_TRAILER:] for start, end in _MARKS):
        raise InputError(f"image {path} is cut short; replace it")
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise InputError(f"image {path} doesn't decode; replace it")
    if shape is not None and pixels.shape[:2] != shape:
        raise InputError(f"image {path} is {pixels.shape[1]}x{pixels.shape[0]} pixels; expected {shape[1]}x{shape[0]}")
    return pixels


def list_images(folder: Path) -> list[str]:
    """Paths of the image files in `folder` and below, in the order of their names, whatever the file system's.

    Raises:
        InputError: the folder is missing, or holds no image.
    """
    from imutils import paths

    if not folder.is_dir():
        raise InputError(f"folder {folder} is missing")
    found = sorted(paths.list_images(str(folder)))
    if not found:
        raise InputError(f"folder {folder} holds no image")
    return found


def read_images(paths: Sequence[str | PathLike], shape: tuple[int, int]) -> Iterator[np.ndarray]:
    """The images at `paths`, in order, in arrays (n, height, width, 3) of a few dozen, each valid until the next.

    Decoding, on all cores, begins with the call and goes on ahead of what is taken, by at most `_AHEAD` arrays. Errors
    are those of `read_image`.
    """

    def decode(start: int, images: np.ndarray) -> np.ndarray:
        chunk = paths[start : start + _CHUNK]
        for row, path in enumerate(chunk):
            images[row] = read_image(path, shape)
        return images[: len(chunk)]

    def task(start: int, images: np.ndarray) -> list:
        return [pool.submit(decode, start, images), start, images]

    def taken() -> Iterator[np.ndarray]:
        try:
            while ahead:
                # The thread that takes the images has a core too: while they aren't ready, it decodes later ones.
                for waiting in ahead:
                    if ahead[0][0].done():
                        break
                    if waiting[0].cancel():
                        waiting[0] = Future()
                        waiting[0].set_result(decode(*waiting[1:]))
                done, _, images = ahead.popleft()
                yield done.result()
                # Used again: fresh memory costs the system as much as a fifth of the decoding.
                ahead.extend(task(start, images) for start in islice(starts, 1))
        finally:
            pool.shutdown(cancel_futures=True)

    starts = iter(range(0, len(paths), _CHUNK))
    pool = ThreadPoolExecutor(max(1, os.cpu_count() - 1))
    ahead = deque(task(start, np.empty((_CHUNK, *shape, 3), np.uint8)) for start in islice(starts, _AHEAD))
    return taken()


def _read_file(path: str | PathLike) -> bytes:
    # By system calls: with a Python file object, two threads that decode small images wait for each other.
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            content = os.read(descriptor, _BLOCK)
            if len(content) == _BLOCK:
                while block := os.read(descriptor, 1 << 20):
                    content += block
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"can't read image {path}: {error.strerror}") from error
    return content
