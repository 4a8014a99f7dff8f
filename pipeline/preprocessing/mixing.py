"""What is done to a whole batch of training images at last: erase a patch, blend or paste images, soften labels."""

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from pipeline.errors import InputError
from pipeline.utils import memory, randomness

# The stream that patches are drawn from, beside those of `pipeline.preprocessing.augmentation`.
_PATCHES = 2


class Mix(NamedTuple):
    """How the images of one batch are mixed."""

    partners: np.ndarray
    """Integers (n,): the position of each image's partner."""
    lam: float
    """The share of an image that stays."""
    point: tuple[float, float] | None
    """(y, x), fractions of height and width, around which CutMix pastes a box; None for Mixup."""


@dataclass(frozen=True)
class Mixing:
    """Cutout, label smoothing, Mixup and CutMix, in this order; each is off at 0.

    Args:
        cutout: side in pixels of a square around a pixel drawn uniformly, cut off at the image's edges, that is set to
            0, the mean colour (DeVries and Taylor, arXiv:1708.04552).
        mixup: alpha; every image of a batch is blended with another of the same batch, and so are their labels, at a
            ratio drawn from Beta(alpha, alpha), one a batch (Zhang et al., arXiv:1710.09412).
        cutmix: alpha; a box is pasted in from another image of the same batch, one box a batch. The share of the
            area that stays is drawn from Beta(alpha, alpha), and what is left of it after the box is cut off at the
            edges is the share of the label (Yun et al., arXiv:1905.04899). With Mixup too, each batch tosses a coin.
        label_smoothing: e leaves 1 - e of a label and spreads e evenly over all classes (Szegedy et al.,
            arXiv:1512.00567). Of training labels alone: validation keeps the labels as they are.

    It holds no random state: Cutout is a function of (seed, epoch, index of the sample), the rest, which `draw` gives,
    one of (seed, epoch, number of the batch).

    Raises:
        InputError: a value is below 0, or `label_smoothing` leaves nothing of a label.
    """

    cutout: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < (1 if field.name == "label_smoothing" else math.inf):
                raise InputError(f"{field.name} is {value}; expected 0 or more, of label_smoothing below 1")

    def check(self, height: int, width: int) -> None:
        """Raise `InputError` if images of `height` times `width` pixels can't be mixed so."""
        if self.cutout > min(height, width):
            raise InputError(
                f"`cutout` {self.cutout}: expected at most {min(height, width)}, for images of {height}x{width} pixels"
            )

    def draw(self, seed: int, epoch: int, batch: int, count: int, group: int | None = None) -> Mix | None:
        """What Mixup or CutMix do to batch `batch` of an epoch, from 0, of `count` images; None if both are off.

        Each image's partner is drawn, each once, from its `group`: the images of a batch in stretches of so many, whole
        ones of `count`, or all of them. One group is what a batch of any number of shares takes, to be the same; with
        groups that fit into a share, no share needs the images of another.
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
        """Mixed images and labels, as many as `mix` has partners, else all; `images` may be changed in place.

        Args:
            images: float32 (n, height, width, channels), the mean subtracted: those to be mixed, and behind them any
                more that are partners.
            labels: float32 (n, classes), each row sums to 1.
            seed, epoch: of the run.
            samples: integers (n,), the indices of the images in the data set.
            mix: what `draw` gave.
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
    """Leave `lam` of each of `images`, and add the rest of its partner in `batch`, in place."""
    rest = batch.take(partners, axis=0, out=memory.empty(images.shape, images.dtype), mode="clip")
    rest *= np.float32(1.0 - lam)
    images *= np.float32(lam)
    images += rest


def _paste(images: np.ndarray, batch: np.ndarray, partners: np.ndarray, lam: float, y: float, x: float) -> float:
    """Paste a box of 1 - `lam` of the area around (y, x), fractions, out of `batch`; return the share that is left."""
    height, width = images.shape[1:3]
    side = np.sqrt(1.0 - lam)
    top, bottom = _span(int(height * side), height, y)
    left, right = _span(int(width * side), width, x)
    images[:, top:bottom, left:right] = batch[partners, top:bottom, left:right]
    return 1.0 - (bottom - top) * (right - left) / (height * width)


def _span(length: int, size: int, uniforms: np.ndarray | float) -> tuple:
    """First pixel, and the one after the last, of a stretch around pixel floor(`uniforms` * `size`), within `size`."""
    start = np.floor(np.asarray(uniforms) * size).astype(int) - length // 2
    return np.maximum(start, 0), np.minimum(start + length, size)
