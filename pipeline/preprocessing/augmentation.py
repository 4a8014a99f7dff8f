"""Random augmentation of training images, many in one call.

OpenCV's `warpAffine` takes one image per call. Two threads that call it contend for Python's interpreter lock and reach
1.5 times the rate of one; with one `remap` of many images, stacked vertically, they reach 1.8 times.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.errors import InputError
from pipeline.utils import memory, randomness

FLIPS = ("none", "random", "alternate")
"""Values of `AffineAugmentation.flip`."""

# Coordinates per OpenCV call, so that they stay in the processor's caches (about 2 MB), and rows, which OpenCV counts
# in 16 bits.
_POINTS = 1 << 17
_ROWS = 32766
# Coordinates are rounded to 1/256 pixel, which float32 holds exactly up to 32,766 rows, so that an image is augmented
# the same wherever it is in a batch.
_FRACTIONS = 256.0
# Number of draws per image, and their streams.
_DRAWS = 9
_VARIATION, _MIRRORING = 0, 1


@dataclass(frozen=True)
class AffineAugmentation:
    """Random rotation, zoom, shift, shear, flip and crop, composed into one affine warp per image.

    The ranges have the meaning that they have in Keras' `ImageDataGenerator`. All are drawn uniformly and relative to
    the image's centre; interpolation is bilinear, and edge pixels are repeated beyond the image. An augmentation has no
    random state: its effect on a sample depends only on the sample's `draws`.

    Args:
        rotation_range: maximum rotation in degrees, in both directions.
        zoom_range: z for factors in [1 - z, 1 + z], or a pair (lowest, highest); drawn separately for width and height.
            A factor below 1 enlarges the content.
        width_shift_range, height_shift_range: maximum shift in both directions, as a fraction of width or height if
            below 1, else in pixels; not rounded to whole pixels.
        shear_range: maximum shear angle in degrees, in both directions.
        flip: "none"; "random", which mirrors a random half of the images in each epoch; or "alternate", which mirrors
            one half in even epochs and the other half in odd ones (Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single
            GPU", arXiv:2404.00498).
        pad_crop: number of pixels N to pad on each side before a random crop to the original size, which shifts by up
            to N whole pixels. The padding mirrors the image without repeating its edge (He et al., arXiv:1512.03385,
            pad with zeros). If N is not 0, the other transformations also read the mirrored image, up to one image size
            beyond each edge.

    Raises:
        InputError: (a `ValueError`) a range is negative or not finite, a zoom factor is not above 0, or `flip` is not
            in `FLIPS`.
    """

    rotation_range: float = 0.0
    zoom_range: float | Sequence[float] = 0.0
    width_shift_range: float = 0.0
    height_shift_range: float = 0.0
    shear_range: float = 0.0
    flip: str = "none"
    pad_crop: int = 0

    def __post_init__(self) -> None:
        for name in ("rotation_range", "width_shift_range", "height_shift_range", "shear_range", "pad_crop"):
            if not 0.0 <= getattr(self, name) < np.inf:
                raise InputError(f"{name} is {getattr(self, name)}; expected a number of at least 0")
        if self.flip not in FLIPS:
            raise InputError(f"flip is {self.flip!r}; expected one of {', '.join(FLIPS)}")
        lowest, highest = self._zoom_factors()
        if not 0.0 < lowest <= highest < np.inf:
            raise InputError(f"zoom_range is {self.zoom_range}; expected factors above 0, such as 0.15 or (0.85, 1.15)")

    def check(self, height: int, width: int) -> None:
        """Raise `InputError` if images of `height` times `width` pixels are too small for `pad_crop`."""
        if self.pad_crop >= min(height, width):
            raise InputError(
                f"`pad_crop` {self.pad_crop}: expected at most {min(height, width) - 1} for images of "
                f"{height}x{width} pixels"
            )

    def draws(self, seed: int, epoch: int, samples: np.ndarray) -> np.ndarray:
        """Draw numbers in [0, 1), float64 (n, 9), from seed, epoch and the indices `samples` (n,)."""
        uniforms = randomness.uniforms(seed, epoch, samples, _DRAWS, _VARIATION)
        if self.flip == "alternate":
            uniforms[:, 2] = randomness.alternating(seed, epoch, samples, _MIRRORING)
        return uniforms

    def __call__(self, images: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Return augmented copies of `images` (n, height, width, channels), uint8 or float32.

        `uniforms` (n, 9) are the result of `draws`.
        """
        count, height, width = images.shape[:3]
        matrices = self.matrices(height, width, uniforms)
        augmented = memory.empty(images.shape, images.dtype)
        at_once = max(1, min(_POINTS // width, _ROWS) // height)
        for start in range(0, count, at_once):
            part = slice(start, start + at_once)
            _warp(images[part], matrices[part], augmented[part], self.pad_crop > 0)
        return augmented

    def matrices(self, height: int, width: int, uniforms: np.ndarray) -> np.ndarray:
        """Return float64 matrices (n, 2, 3) that map a result's pixel (x, y, 1) to the point (x, y) it is read from.

        The point is centre + rotation @ (shift + shear @ zoom @ (pixel - centre)), with the pixel mirrored first.
        """
        signed = 2.0 * uniforms - 1.0
        shift_x = signed[:, 0] * self.width_shift_range * (width if self.width_shift_range < 1.0 else 1.0)
        shift_y = signed[:, 1] * self.height_shift_range * (height if self.height_shift_range < 1.0 else 1.0)
        crop_x, crop_y = (np.floor(uniforms[:, 7:9] * (2 * self.pad_crop + 1)) - self.pad_crop).T
        shift_x, shift_y = shift_x + crop_x, shift_y + crop_y
        mirror = np.where((uniforms[:, 2] < 0.5) & (self.flip != "none"), -1.0, 1.0)
        rotation = np.deg2rad(signed[:, 3] * self.rotation_range)
        shear = np.deg2rad(signed[:, 4] * self.shear_range)
        lowest, highest = self._zoom_factors()
        zoom_x, zoom_y = (lowest + (highest - lowest) * uniforms[:, 5:7]).T

        cosine, sine = np.cos(rotation), np.sin(rotation)
        matrices = np.empty((len(uniforms), 2, 3))
        matrices[:, 0, 0] = cosine * zoom_x * mirror
        matrices[:, 0, 1] = (-cosine * np.sin(shear) - sine * np.cos(shear)) * zoom_y
        matrices[:, 1, 0] = sine * zoom_x * mirror
        matrices[:, 1, 1] = (-sine * np.sin(shear) + cosine * np.cos(shear)) * zoom_y
        # Everything but the shift keeps the centre in place.
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        shift = np.stack([cosine * shift_x - sine * shift_y, sine * shift_x + cosine * shift_y], axis=1)
        matrices[:, :, 2] = centre + shift - (matrices[:, :, :2] * centre).sum(axis=2)
        return matrices

    def _zoom_factors(self) -> tuple[float, float]:
        if isinstance(self.zoom_range, Sequence):
            lowest, highest = self.zoom_range
            return lowest, highest
        return 1.0 - self.zoom_range, 1.0 + self.zoom_range


class Mirror:
    """Mirror every image, for test-time augmentation. Takes no draws."""

    def draws(self, seed: int, epoch: int, samples: np.ndarray) -> None:
        return None

    def __call__(self, images: np.ndarray, draws: None) -> np.ndarray:
        """Return `images` (n, height, width, channels) mirrored left to right."""
        return images[:, :, ::-1]


def _warp(images: np.ndarray, matrices: np.ndarray, augmented: np.ndarray, reflect: bool) -> None:
    """Warp `images` (n, height, width, channels) by their `matrices` (n, 2, 3) into `augmented`.

    Beyond the image, edge pixels are repeated, or with `reflect` the image is mirrored.
    """
    count, height, width, channels = images.shape
    across = _to_fractions(matrices[:, :, 0, None] * np.arange(width) + matrices[:, :, 2, None])
    down = _to_fractions(matrices[:, :, 1, None] * np.arange(height))
    x, y = (
        np.add(across[:, axis, None, :], down[:, axis, :, None], out=memory.empty((count, height, width), np.float32))
        for axis in (0, 1)
    )
    for points, last in ((x, width - 1.0), (y, height - 1.0)):
        if reflect:
            np.abs(points, out=points)
            np.subtract(last, points, out=points)
            np.abs(points, out=points)
            np.subtract(last, points, out=points)
        np.clip(points, 0.0, last, out=points)
    # The images stacked vertically.
    y += np.arange(0, count * height, height, dtype=np.float32)[:, None, None]
    cv2.remap(
        images.reshape(-1, width, channels),
        x.reshape(-1, width),
        y.reshape(-1, width),
        cv2.INTER_LINEAR,
        dst=augmented.reshape(-1, width, channels),
        borderMode=cv2.BORDER_REPLICATE,
    )


def _to_fractions(points: np.ndarray) -> np.ndarray:
    return (np.rint(points * _FRACTIONS) / _FRACTIONS).astype(np.float32)
