"""Image files, read whole or refused."""

import os
import sys
import tempfile
from os import PathLike
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import InputError
from pipeline.io.files import read_regular
from pipeline.io.imageheader import read_header

MOST_BYTES = 1 << 25
# OpenCV reads this when it loads, and holds to it too.
MOST_PIXELS = int(os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"])


def read_image(path: str | PathLike, shape: tuple[int, int] | None = None) -> np.ndarray:
    """The pixels of a JPEG or PNG file, uint8 (height, width, 3), BGR; grayscale becomes three equal channels.

    Args:
        path: the file.
        shape: the (height, width) that the image must have, or None for any of at most `MOST_PIXELS`.

    Raises:
        InputError: the file can't be read, is neither JPEG nor PNG, is too large, is cut short, has another size, or
            doesn't decode. All but the last show before anything is decoded.
    """
    try:
        content = read_regular(path, MOST_BYTES)
    except OSError as error:
        raise InputError(f"can't read image {path}: {error.strerror}") from error
    try:
        header = read_header(content)
    except ValueError as error:
        raise InputError(f"image {path} {error}; remove or replace it") from error
    if shape is not None and {header.height, header.width} != set(shape):
        raise InputError(f"image {path} is {header.width}x{header.height} pixels; expected {shape[1]}x{shape[0]}")
    if header.width * header.height > MOST_PIXELS:
        raise InputError(f"image {path} has {header.width}x{header.height} pixels; expected at most {MOST_PIXELS:,}")
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise InputError(f"image {path} doesn't decode: {error.err:.100}; replace it") from error
    if pixels is None:
        raise InputError(f"image {path} doesn't decode; replace it")
    if shape is not None and pixels.shape[:2] != shape:  # turned, as its EXIF data ask for
        raise InputError(f"image {path} is {pixels.shape[1]}x{pixels.shape[0]} pixels; expected {shape[1]}x{shape[0]}")
    return pixels


class StrictDecoder:
    """Reads images one at a time, and takes the decoder's complaints for errors: it fills in what is missing inside.

    The C libraries behind OpenCV print their complaints. This turns the process's standard error, below Python, to a
    file to find them in: for processes that do nothing else.
    """

    def __init__(self) -> None:
        sys.stderr = os.fdopen(os.dup(2), "w")
        with tempfile.TemporaryFile() as complaints:
            os.dup2(complaints.fileno(), 2)

    def read(self, path: str | PathLike, shape: tuple[int, int] | None = None) -> np.ndarray:
        """What `read_image` returns; `InputError` also where the decoder has complained."""
        try:
            pixels = read_image(path, shape)
        finally:
            complaint = self._take_complaint()
        if complaint:
            raise InputError(f"image {path} is damaged: {complaint}; replace it")
        return pixels

    def _take_complaint(self) -> str:
        if not os.fstat(2).st_size:
            return ""
        text = os.pread(2, 200, 0).decode(errors="replace").partition("\n")[0]
        os.ftruncate(2, 0)
        os.lseek(2, 0, os.SEEK_SET)
        return text


def list_images(folder: Path) -> list[str]:
    """Paths of the image files in `folder` and below, in the order of their names, whatever the file system's.

    Raises:
        InputError: the folder is missing, or holds no image, or one whose name can't be printed.
    """
    from imutils import paths

    if not folder.is_dir():
        raise InputError(f"folder {folder} is missing")
    found = sorted(paths.list_images(str(folder)))
    if not found:
        raise InputError(f"folder {folder} holds no image")
    start = len(str(folder))
    for path in found:
        if not path[start:].isprintable():
            raise InputError(f"{folder} holds {path[start:]!a}, whose name can't be printed; rename it")
    return found
