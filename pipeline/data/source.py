"""A data set as one thing: what a network is trained, validated and tested on."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import InputError
from pipeline.io.imageset import ImageSet
from pipeline.preprocessing import AffineAugmentation, MeanImagePreprocessor, Mixing
from pipeline.utils import randomness

if TYPE_CHECKING:  # Reading and checking images needs no Keras.
    from pipeline.io.batches import Batches


class DataSource:
    """Labelled images for training, validation and test. A subclass gives `name`, `load` and `normalization`.

    Args:
        data: where the images lie, as the data set takes it; None for where they usually do.
        limit: train on this many images, and validate on as many, a fixed choice; on all if None or if there are fewer.
        holdout: validate on so many training images, a fixed choice, which are not trained on. A `limit` counts among
            the others alone, and all that are held out are validated on.

    Attributes:
        name: the data set's, as checkpoints hold it.
        keeps_shuffle: whether images that are chosen stay in the order that chose them; else they keep their own, in
            which a disk reads them faster. Checkpoints know a choice by its order too.
        normalizes_choice: whether `normalization` follows from what is trained on, and not from all training images.
        mirrors: whether a mirrored image still shows its class: true of things, not of digits.

    Raises:
        InputError: (a `ValueError`) `limit` or `holdout` is below 1. What can't be read shows when it is first needed.
    """

    name: str
    keeps_shuffle = False
    normalizes_choice = True
    mirrors = True

    def __init__(self, data: object = None, limit: int | None = None, holdout: int | None = None) -> None:
        for name, value in {"limit": limit, "holdout": holdout}.items():
            if value is not None and value < 1:
                raise InputError(f"`{name}` is {value}; expected a number of images of at least 1")
        self.data = data
        self.limit = limit
        self.holdout = holdout
        self._loaded: dict[str, ImageSet] = {}

    def load(self, split: str) -> ImageSet:
        """All images of the `split` "train", "val" or "test", read anew.

        Raises:
            InputError: they are missing or can't be read.
        """
        raise NotImplementedError

    def whole(self, split: str) -> ImageSet:
        """The same, read once."""
        if split not in self._loaded:
            self._loaded[split] = self.load(split)
        return self._loaded[split]

    @property
    def normalization(self) -> MeanImagePreprocessor:
        """What is done to an image at last before the network gets it; its `mean` is what it subtracts."""
        raise NotImplementedError

    @property
    def class_names(self) -> tuple[str, ...]:
        """What people call the classes, in the order of the labels."""
        return self.whole("train").class_names

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images that the network gets."""
        return self.whole("train").image_shape

    @property
    def is_choice(self) -> bool:
        """Whether a part of the images was chosen."""
        return self.limit is not None or self.holdout is not None

    @cached_property
    def train(self) -> ImageSet:
        """What is trained on."""
        start = self.holdout or 0
        return self._chosen("train", slice(start, None if self.limit is None else start + self.limit))

    @cached_property
    def val(self) -> ImageSet:
        """What is validated on."""
        if self.holdout is None:
            return self._chosen("val", slice(self.limit))
        return self._chosen("train", slice(self.holdout))

    def train_batches(
        self, batch_size: int, aug: Callable | None = None, mixing: Mixing | None = None, seed: int = 0, **options
    ) -> "Batches":
        """Shuffled batches of the training images, varied and mixed; `options` are workers and share (see `Batches`).

        Raises:
            InputError: there are too few images for a batch, they can't be varied so, or training and validation images
                are of other classes.
        """
        if self.holdout is None:
            train, val = self.whole("train"), self.whole("val")
            if (train.class_names, train.label_names) != (val.class_names, val.label_names):
                raise InputError(f"the training and the validation images of {self.name} are of other classes")
        if not self.mirrors and getattr(aug, "flip", "none") != "none":
            logging.getLogger(__name__).info("%s: no image is mirrored, which would not show the same", self.data)
            aug = replace(aug, flip="none")
        options |= {"aug": None if aug == AffineAugmentation() else aug, "mixing": mixing}
        return self._batches(self.train, batch_size, training=True, seed=seed, **options)

    def val_batches(self, batch_size: int, **options) -> "Batches":
        """Batches of the validation images, in order; `options` are workers and share."""
        return self._batches(self.val, batch_size, **options)

    def test_batches(self, batch_size: int, **options) -> "Batches":
        """The same of all test images, whatever `limit` and `holdout` choose."""
        return self._batches(self.whole("test"), batch_size, **options)

    def normalize_by(self, mean: np.ndarray) -> None:
        """Subtract `mean`, as a checkpoint holds it, from images, so that nothing of the training set is needed."""
        self.__dict__["normalization"] = MeanImagePreprocessor(mean)

    def digest(self) -> str:
        """SHA-256 over what is trained and validated on, in hexadecimal: the same digest, the same images.

        Augmentation, batches and their order don't count.
        """
        return hashlib.sha256("".join(map(self.digest_of, (self.train, self.val))).encode()).hexdigest()

    def digest_of(self, images: ImageSet) -> str:
        """SHA-256 over `images` and what is subtracted from them, in hexadecimal."""
        digest = hashlib.sha256(images.digest().encode())
        digest.update(self.normalization.mean.tobytes())
        return digest.hexdigest()

    def _batches(self, images: ImageSet, batch_size: int, **options) -> "Batches":
        from pipeline.io.batches import Batches

        return Batches(images, batch_size, preprocessors=[self.normalization], **options)

    def _chosen(self, split: str, part: slice) -> ImageSet:
        """Those images of a split that are the `part` of a fixed shuffle of them."""
        whole = self.whole(split)
        if not self.is_choice:
            return whole
        if split == "train" and self.holdout is not None and self.holdout >= len(whole):
            raise InputError(f"`holdout` {self.holdout} leaves nothing of {len(whole)} training images; expected fewer")
        rows = randomness.permutation(0, 0, len(whole))[part]
        return whole.choose(rows if self.keeps_shuffle else np.sort(rows))
