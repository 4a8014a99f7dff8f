"""Random variations of training images, many in one call.

OpenCV's `warpAffine` takes one image. Threads that call it for each meet at Python's lock so often that two of them do
1.5 times the work of one; one `remap` of many images, laid above one another, lets two do 1.8 times.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.errors import InputError
from pipeline.utils import memory, randomness

FLIPS = ("none", "random", "alternate")
"""What `AffineAugmentation` may be told of mirroring."""

# How many points a call of OpenCV reads from at most, so that they stay in a processor's caches: about 2 MB in all; and
# in how many rows, which it counts in 16 bits.
_POINTS = 1 << 17
_ROWS = 32766
# Points are told in these fractions of a pixel, sums of which float32 holds exactly up to so many rows: an image comes
# out the same wherever in a batch it lies.
_FRACTIONS = 256.0
# Numbers that an image draws, and the streams that they come from.
_DRAWS = 9
_VARIATION, _MIRRORING = 0, 1


@dataclass(frozen=True)
class AffineAugmentation:
    """Random rotation, zoom, shifts, shear, mirroring and crops, composed into one affine warp an image.

    The ranges mean what Keras' `ImageDataGenerator` gave these names; all are drawn
    uniformly, about the image's centre, with bilinear interpolation, and edges are repeated.

    Args:
        rotation_range: largest rotation either way, in degrees.
        zoom_range: z for factors in [1 - z, 1 + z], or a pair (lowest, highest), width and height each on their own; a
            factor below 1 enlarges what is seen.
        width_shift_range, height_shift_range: largest shift either way, as a fraction of the image's width and height
            if below 1, else in pixels; not rounded to whole pixels.
        shear_range: largest shear angle either way, in degrees.
        flip: mirror no image, "none", a half of them drawn anew in each epoch, "random", or in every second epoch the
            half that was not mirrored in the one before, "alternate": two epochs show each image both ways (Jordan,
            "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv:2404.00498).
        pad_crop: N pads an image by N pixels on each side, in which it is mirrored without repeating its edge, and
            crops it back to its size anywhere: a shift of up to N whole pixels either way (He et al.,
            arXiv:1512.03385, pad with zeros). With it, all that is read beyond an edge, up to an image's size, is
            mirrored in.

    An augmentation holds no random state: what it does to a sample follows from the numbers of `draws`.

    Raises:
        InputError: (a `ValueError`) a range is negative or not finite, a zoom factor is not above 0, `flip` is another
            word.
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
            raise InputError(f"zoom_range is {self.zoom_range}; expected factors above 0, as 0.15 or (0.85, 1.15)")

    def check(self, height: int, width: int) -> None:
        """Raise `InputError` if images of `height` times `width` pixels can't be varied so."""
        if self.pad_crop >= min(height, width):
            raise InputError(
                f"`pad_crop` {self.pad_crop}: expected at most {min(height, width) - 1}, for images of "
                f"{height}x{width} pixels"
            )

    def draws(self, seed: int, epoch: int, samples: np.ndarray) -> np.ndarray:
        """Numbers in [0, 1), float64 (n, 9), a function of seed, epoch and each sample's index in `samples` (n,)."""
        uniforms = randomness.uniforms(seed, epoch, samples, _DRAWS, _VARIATION)
        if self.flip == "alternate":
            uniforms[:, 2] = randomness.alternating(seed, epoch, samples, _MIRRORING)
        return uniforms

    def __call__(self, images: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Varied copies of `images` (n, height, width, channels), uint8 or float32, given their `draws` (n, 9)."""
        count, height, width = images.shape[:3]
        matrices = self.matrices(height, width, uniforms)
        varied = memory.empty(images.shape, images.dtype)
        at_once = max(1, min(_POINTS // width, _ROWS) // height)
        for start in range(0, count, at_once):
            part = slice(start, start + at_once)
            _warp(images[part], matrices[part], varied[part], self.pad_crop > 0)
        return varied

    def matrices(self, height: int, width: int, uniforms: np.ndarray) -> np.ndarray:
        """Float64 matrices (n, 2, 3) that map a pixel (x, y, 1) of the result to the point (x, y) it is read from.

        The point is centre + rotation @ (shift + shear @ zoom @ (pixel - centre)), the pixel mirrored first.
        """
        either_way = 2.0 * uniforms - 1.0
        shift_x = either_way[:, 0] * self.width_shift_range * (width if self.width_shift_range < 1.0 else 1.0)
        shift_y = either_way[:, 1] * self.height_shift_range * (height if self.height_shift_range < 1.0 else 1.0)
        crop_x, crop_y = (np.floor(uniforms[:, 7:9] * (2 * self.pad_crop + 1)) - self.pad_crop).T
        shift_x, shift_y = shift_x + crop_x, shift_y + crop_y
        mirror = np.where((uniforms[:, 2] < 0.5) & (self.flip != "none"), -1.0, 1.0)
        rotation = np.deg2rad(either_way[:, 3] * self.rotation_range)
        shear = np.deg2rad(either_way[:, 4] * self.shear_range)
        lowest, highest = self._zoom_factors()
        zoom_x, zoom_y = (lowest + (highest - lowest) * uniforms[:, 5:7]).T

        cosine, sine = np.cos(rotation), np.sin(rotation)
        matrices = np.empty((len(uniforms), 2, 3))
        matrices[:, 0, 0] = cosine * zoom_x * mirror
        matrices[:, 0, 1] = (-cosine * np.sin(shear) - sine * np.cos(shear)) * zoom_y
        matrices[:, 1, 0] = sine * zoom_x * mirror
        matrices[:, 1, 1] = (-sine * np.sin(shear) + cosine * np.cos(shear)) * zoom_y
        # Mirroring turns about the centre too, so the centre stays where it is but for the shift.
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
    """Mirrors every image: what test-time augmentation scores beside the image itself. Draws nothing."""

    def draws(self, seed: int, epoch: int, samples: np.ndarray) -> None:
        return None

    def __call__(self, images: np.ndarray, draws: None) -> np.ndarray:
        """`images` (n, height, width, channels) from right to left."""
        return images[:, :, ::-1]


def _warp(images: np.ndarray, matrices: np.ndarray, varied: np.ndarray, reflect: bool) -> None:
    """Fill `varied` with `images` (n, height, width, channels), each read where its matrix (2, 3) says.

    Beyond an edge lies the edge again and again, or with `reflect` the image mirrored at it.
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
    # As one column of images.
    y += np.arange(0, count * height, height, dtype=np.float32)[:, None, None]
    cv2.remap(
        images.reshape(-1, width, channels),
        x.reshape(-1, width),
        y.reshape(-1, width),
        cv2.INTER_LINEAR,
        dst=varied.reshape(-1, width, channels),
        borderMode=cv2.BORDER_REPLICATE,
    )


def _to_fractions(points: np.ndarray) -> np.ndarray:
    return (np.rint(points * _FRACTIONS) / _FRACTIONS).astype(np.float32)
