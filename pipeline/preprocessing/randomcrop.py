"""Random crops of images of any size, resized to the network's size, as on ImageNet."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.errors import InputError
from pipeline.preprocessing.augmentation import FLIPS
from pipeline.utils import randomness

# Draws per image, and their streams; `augmentation` uses 0 and 1, `mixing` 2.
_TRIES = 10
_DRAWS = 4 * _TRIES + 4
_CROPS, _MIRRORING = 3, 4
# Luminance of B, G and R (ITU-R BT.601).
_LUMINANCE = np.array([0.114, 0.587, 0.299])


@dataclass(frozen=True)
class RandomCrop:
    """A random part of an image, resized to the network's size, mirrored, and changed in colour.

    Area and aspect ratio of the crop are random (Szegedy et al., "Going deeper with convolutions", arXiv:1409.4842,
    section 6), in the usual definition: up to ten times, a fraction of the image's area is drawn uniformly from
    `crop_area` to 1, and the logarithm of the ratio of width to height uniformly from -log `crop_ratio` to
    log `crop_ratio`; the first rectangle that fits into the image is taken, at a uniformly random place. If none fits,
    the largest central part with an allowed ratio is taken.

    Colours change by factors of brightness, contrast and saturation, each drawn uniformly from 1 - `color_jitter` to
    1 + `color_jitter` and applied in this order. All three together are one affine map of a pixel's colour. There is no
    random state: the effect on a sample depends only on its `draws`.

    Args:
        crop_area: smallest fraction of the image's area, above 0 and at most 1.
        crop_ratio: largest ratio of width to height, and of height to width, at least 1.
        flip: see `AffineAugmentation`.
        color_jitter: largest change of brightness, contrast and saturation, at least 0 and below 1; 0 is off.

    Raises:
        InputError: (a `ValueError`) a value is out of range.
    """

    crop_area: float = 1.0
    crop_ratio: float = 1.0
    flip: str = "none"
    color_jitter: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.crop_area <= 1:
            raise InputError(f"crop_area is {self.crop_area}; expected a number above 0 and at most 1")
        if not 1 <= self.crop_ratio < math.inf:
            raise InputError(f"crop_ratio is {self.crop_ratio}; expected a number of at least 1")
        if self.flip not in FLIPS:
            raise InputError(f"flip is {self.flip!r}; expected one of {', '.join(FLIPS)}")
        if not 0 <= self.color_jitter < 1:
            raise InputError(f"color_jitter is {self.color_jitter}; expected a number of at least 0 and below 1")

    def draws(self, seed: int, epoch: int, samples: np.ndarray) -> np.ndarray:
        """Draw numbers in [0, 1), float64 (n, 44), from seed, epoch and the indices `samples` (n,)."""
        uniforms = randomness.uniforms(seed, epoch, samples, _DRAWS, _CROPS)
        if self.flip == "alternate":
            uniforms[:, 0] = randomness.alternating(seed, epoch, samples, _MIRRORING)
        return uniforms

    def box(self, height: int, width: int, uniforms: np.ndarray) -> tuple[int, int, int, int]:
        """Return top, left, height and width of the crop of an image, given its draws (44,)."""
        for area, ratio, top, left in uniforms[4:].reshape(_TRIES, 4).tolist():
            pixels = height * width * (self.crop_area + (1 - self.crop_area) * area)
            ratio = self.crop_ratio ** (2 * ratio - 1)
            crop_height, crop_width = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
            if 0 < crop_height <= height and 0 < crop_width <= width:
                return (
                    int(top * (height - crop_height + 1)),
                    int(left * (width - crop_width + 1)),
                    crop_height,
                    crop_width,
                )
        crop_height = min(height, max(1, round(width * self.crop_ratio)))
        crop_width = min(width, max(1, round(height * self.crop_ratio)))
        return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width

    def finish(self, image: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Mirror an image, uint8 (height, width, 3), BGR, and change its colours, given its draws (44,)."""
        if self.flip != "none" and uniforms[0] < 0.5:
            image = cv2.flip(image, 1)
        if self.color_jitter:
            image = cv2.transform(image, self.color_map(image, uniforms))
        return image

    def color_map(self, image: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Return the affine map of colours (3, 4), float64: a 3x3 matrix and a constant, for B, G and R."""
        brightness, contrast, saturation = 1 + self.color_jitter * (2 * uniforms[1:4] - 1)
        gray = brightness * _LUMINANCE @ cv2.mean(image)[:3]
        mixed = saturation * np.eye(3) + (1 - saturation) * _LUMINANCE
        return np.column_stack([contrast * brightness * mixed, np.full(3, (1 - contrast) * gray)])
