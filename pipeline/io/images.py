"""Image files, read whole or refused."""

from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import InputError

# What a whole file of each format starts and ends with. OpenCV decodes a truncated one without complaint.
_MARKS = {"JPEG": (b"\xff\xd8\xff", b"\xff\xd9"), "PNG": (b"\x89PNG\r\n\x1a\n", b"IEND\xae\x42\x60\x82")}


def read_image(path: Path) -> np.ndarray:
    """The pixels of a JPEG or PNG file, uint8 (height, width, 3), BGR; grayscale becomes three equal channels.

    Raises:
        InputError: the file can't be read, is neither JPEG nor PNG, is cut short, or doesn't decode.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"can't read image {path}: {error.strerror}") from error
    for start, end in _MARKS.values():
        if content.startswith(start):
            # Some programs add a few bytes of their own after the end.
            if end not in content[-4096:]:
                raise InputError(f"image {path} is cut short; replace it")
            break
    else:
        raise InputError(f"{path} is neither JPEG nor PNG; remove or replace it")
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise InputError(f"image {path} doesn't decode; replace it")
    return pixels
