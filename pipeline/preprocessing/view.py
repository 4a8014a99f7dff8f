"""Resize images, and take the central part that a network evaluates."""

import cv2
import numpy as np

from pipeline import MAX_IMAGE_PIXELS
from pipeline.errors import InputError


def resize(image: np.ndarray, out: np.ndarray) -> None:
    """Resize `image` into `out`, uint8 (height, width, 3), averaging by area to shrink, else interpolating linearly."""
    (height, width), (new_height, new_width) = image.shape[:2], out.shape[:2]
    shrinks = height >= new_height and width >= new_width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    if shrinks and (height % new_height or width % new_width):
        # OpenCV averages float32 in three quarters of the time that it takes for uint8, with the same result.
        averaged = cv2.resize(image.astype(np.float32), (new_width, new_height), interpolation=interpolation)
        cv2.convertScaleAbs(averaged, dst=out)
    else:
        cv2.resize(image, (new_width, new_height), dst=out, interpolation=interpolation)


def view_size(height: int, width: int, size: int, ratio: float) -> tuple[int, int]:
    """Return (height, width) of an image that is resized for `central_view`.

    Raises:
        InputError: (a `ValueError`) it would have more than `MAX_IMAGE_PIXELS` pixels.
    """
    scale = round(size / ratio) / min(height, width)
    new_height, new_width = round(height * scale), round(width * scale)
    if new_height * new_width > MAX_IMAGE_PIXELS:
        raise InputError(
            f"would be resized to {new_width}x{new_height} pixels; expected at most {MAX_IMAGE_PIXELS:,}; use a larger "
            "`eval_ratio`, or a smaller `image_size`"
        )
    return new_height, new_width


def central_view(image: np.ndarray, size: int, ratio: float = 1.0) -> np.ndarray:
    """Return the central square of `size` pixels of an image whose shorter side is resized to `size` / `ratio` pixels.

    Args:
        image: uint8 (height, width, 3).
        ratio: side of the square as a fraction of the shorter side, above 0 and at most 1.

    Raises:
        InputError: (a `ValueError`) the image is so much longer than wide that resizing it would take too much memory.
    """
    resized = np.empty((*view_size(*image.shape[:2], size, ratio), 3), np.uint8)
    resize(image, resized)
    top, left = ((side - size) // 2 for side in resized.shape[:2])
    return resized[top : top + size, left : left + size]
