"""Cutout, Mixup, CutMix and label smoothing of a training batch."""

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from pipeline.errors import InputError
from pipeline.utils import memory, randomness

# The stream of Cutout's patches; `pipeline.preprocessing.augmentation` uses 0 and 1.
_PATCHES = 2


class Mix(NamedTuple):
    """The random choices of Mixup or CutMix for one batch."""

    partners: np.ndarray
    """Integers (n,): the position of each image's partner."""
    lam: float
    """The weight of the image itself, 0 to 1."""
    point: tuple[float, float] | None
    """(y, x) of the centre of CutMix' box, as fractions of height and width; None for Mixup."""


@dataclass(frozen=True)
class Mixing:
    """Apply Cutout, label smoothing, and Mixup or CutMix, in this order; each is off at 0.

    There is no random state: Cutout depends on (seed, epoch, index of the sample), Mixup and CutMix on (seed, epoch,
    number of the batch).

    Args:
        cutout: side in pixels of a square around a random pixel, clipped at the image's edges, that is set to 0, the
            mean colour (DeVries and Taylor, arXiv:1708.04552).
        mixup: alpha; blend every image and label with another of the batch, with one ratio per batch from Beta(alpha,
            alpha) (Zhang et al., arXiv:1710.09412).
        cutmix: alpha; paste one box per batch from another image of the batch. The fraction of the area that stays is
            drawn from Beta(alpha, alpha); after clipping the box at the edges, the remaining fraction weights the label
            (Yun et al., arXiv:1905.04899). With Mixup too, each batch uses either one with probability 1/2.
        label_smoothing: e; keep 1 - e of each training label and spread e evenly over all classes (Szegedy et al.,
            arXiv:1512.00567). Validation labels stay as they are.

    Raises:
        InputError: (a `ValueError`) a value is below 0 or not finite, or `label_smoothing` is not below 1.
    """

    cutout: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < (1 if field.name == "label_smoothing" else math.inf):
                below = " and below 1" if field.name == "label_smoothing" else ""
                raise InputError(f"{field.name} is {value}; expected a finite number of at least 0{below}")

    def check(self, height: int, width: int) -> None:
        """Raise `InputError` if images of `height` times `width` pixels are too small for `cutout`."""
        if self.cutout > min(height, width):
            raise InputError(
                f"`cutout` {self.cutout}: expected at most {min(height, width)} for images of {height}x{width} pixels"
            )

    def draw(self, seed: int, epoch: int, batch: int, count: int, group: int | None = None) -> Mix | None:
        """Draw how to mix batch number `batch` of `count` images; return None if Mixup and CutMix are off.

        Partners are a permutation of the batch, or of each block of `group` images, where `group` divides `count`.
        Without groups, a batch is mixed the same for any number of shares. With groups that fit into a share, no share
        needs images of another.
        """
        if not (self.mixup or self.cutmix):
            return None
        rng = randomness.generator(seed, epoch, batch)
        size = group or count
        partners = np.concatenate([start + rng.permutation(size) for start in range(0, count, size)])
        pastes = self.cutmix > 0 and (not self.mixup or rng.random() < 0.5)
        alpha = self.cutmix if pastes else self.mixup
        lam = rng.beta(alpha, alpha)
        return Mix(partners, lam, tuple(rng.random(2)) if pastes else None)

    def __call__(
        self, images: np.ndarray, labels: np.ndarray, seed: int, epoch: int, samples: np.ndarray, mix: Mix | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return mixed images and labels; `images` may be modified in place.

        Args:
            images: float32 (n, height, width, channels), mean subtracted: the images to mix, followed by partners from
                other shares.
            labels: float32 (n, classes), rows that sum to 1.
            seed, epoch: seed of the run, and completed epochs.
            samples: indices (n,) of the images in the data set.
            mix: the result of `draw`; as many images are returned as it has partners, or all if it is None.
        """
        if self.cutout:
            self._erase(images, randomness.uniforms(seed, epoch, samples, 2, _PATCHES))
        if self.label_smoothing:
            labels = labels * np.float32(1.0 - self.label_smoothing)
            labels += np.float32(self.label_smoothing / labels.shape[1])
        if mix is None:
            return images, labels
        partners, lam, point = mix
        own = slice(len(partners))
        if point is None:
            _blend(images[own], images, partners, lam)
        else:
            lam = _paste(images[own], images, partners, lam, *point)
        return images[own], labels[own] * np.float32(lam) + labels[partners] * np.float32(1.0 - lam)

    def _erase(self, images: np.ndarray, uniforms: np.ndarray) -> None:
        tops, bottoms = _span(self.cutout, images.shape[1], uniforms[:, 0])
        lefts, rights = _span(self.cutout, images.shape[2], uniforms[:, 1])
        for image, *(top, bottom, left, right) in zip(
            images, tops.tolist(), bottoms.tolist(), lefts.tolist(), rights.tolist(), strict=True
        ):
            image[top:bottom, left:right] = 0.0


def _blend(images: np.ndarray, batch: np.ndarray, partners: np.ndarray, lam: float) -> None:
    """Blend `images` with their partners in `batch`, with weights `lam` and 1 - `lam`, in place."""
    rest = batch.take(partners, axis=0, out=memory.empty(images.shape, images.dtype), mode="clip")
    rest *= np.float32(1.0 - lam)
    images *= np.float32(lam)
    images += rest


def _paste(images: np.ndarray, batch: np.ndarray, partners: np.ndarray, lam: float, y: float, x: float) -> float:
    """Paste a box with 1 - `lam` of the area around (y, x) from `batch`; return the fraction that is left."""
    height, width = images.shape[1:3]
    side = np.sqrt(1.0 - lam)
    top, bottom = _span(int(height * side), height, y)
    left, right = _span(int(width * side), width, x)
    images[:, top:bottom, left:right] = batch[partners, top:bottom, left:right]
    return 1.0 - (bottom - top) * (right - left) / (height * width)


def _span(length: int, size: int, uniforms: np.ndarray | float) -> tuple:
    """Return start and end of `length` pixels around pixel floor(`uniforms` * `size`), clipped to 0 and `size`."""
    start = np.floor(np.asarray(uniforms) * size).astype(int) - length // 2
    return np.maximum(start, 0), np.minimum(start + length, size)
