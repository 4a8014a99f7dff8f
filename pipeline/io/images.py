"""Image files, read whole or refused."""

import os
from os import PathLike
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import InputError

# What a whole file of each format starts and ends with, save for a few bytes that some programs add at the end. OpenCV
# decodes a truncated one without complaint.
_MARKS = ((b"\xff\xd8\xff", b"\xff\xd9"), (b"\x89PNG\r\n\x1a\n", b"IEND\xae\x42\x60\x82"))
_TRAILER = 4096
# Bytes that hold most small images whole.
_BLOCK = 1 << 14


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
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # a header that asks for more pixels than there may be
        pixels = None
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


def _read_file(path: str | PathLike) -> bytes:
    # By system calls: a Python file object takes a fifth as long as decoding a small image does.
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
