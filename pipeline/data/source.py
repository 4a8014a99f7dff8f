"""The base class of data sets."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import InputError
from pipeline.io.imageset import ImageSet
from pipeline.preprocessing import AffineAugmentation, Mixing, Normalization
from pipeline.utils import randomness

if TYPE_CHECKING:  # Reading images needs no Keras.
    from pipeline.io.batches import Batches


class DataSource:
    """Labelled images for training, validation and test. Subclasses define `name`, `load` and `normalization`.

    Args:
        data: path of the images; None for the data set's default.
        limit: train on a fixed random subset of this many images, and validate on as many; on all images if there are
            fewer, or if None.
        holdout: validate on a fixed random subset of this many training images, and train on the others. A `limit` then
            applies to training only.

    Attributes:
        name: name of the data set in checkpoints.
        keeps_shuffle: True to keep a subset in shuffled order; False to restore the original order, which a disk reads
            faster. The digest of images in memory depends on their order.
        normalizes_subset: True if `normalization` is computed from the images trained on, False if from all training
            images.
        colours: order of the channels of the network's images, "RGB" or "BGR".
        mirrors: False if a mirrored image shows something else, as with digits.
        evaluation_split: the split that published accuracies are measured on; "val" if the test labels are secret.

    Raises:
        InputError: (a `ValueError`) `limit` or `holdout` is below 1. Unreadable data raises on first use.
    """

    name: str
    keeps_shuffle = False
    normalizes_subset = True
    colours = "RGB"
    mirrors = True
    evaluation_split = "test"

    def __init__(self, data: object = None, limit: int | None = None, holdout: int | None = None) -> None:
        for name, value in {"limit": limit, "holdout": holdout}.items():
            if value is not None and value < 1:
                raise InputError(f"`{name}` is {value}; expected a number of images of at least 1")
        self.data = data
        self.limit = limit
        self.holdout = holdout
        self._loaded: dict[str, ImageSet] = {}

    def load(self, split: str) -> ImageSet:
        """Read all images of the `split` "train", "val" or "test".

        Raises:
            InputError: images are missing or can't be read.
        """
        raise NotImplementedError

    def whole(self, split: str) -> ImageSet:
        """Return all images of a `split`, read once."""
        if split not in self._loaded:
            self._loaded[split] = self.load(split)
        return self._loaded[split]

    @property
    def normalization(self) -> Normalization:
        """The last preprocessor before the network."""
        raise NotImplementedError

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their labels."""
        return self.whole("train").class_names

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the network's images."""
        return self.whole("train").image_shape

    @property
    def is_subset(self) -> bool:
        """True if `limit` or `holdout` selects a part of the images."""
        return self.limit is not None or self.holdout is not None

    @cached_property
    def train(self) -> ImageSet:
        """The images to train on."""
        start = self.holdout or 0
        return self._select("train", slice(start, None if self.limit is None else start + self.limit))

    @cached_property
    def val(self) -> ImageSet:
        """The images to validate on."""
        if self.holdout is None:
            return self._select("val", slice(self.limit))
        return self._select("train", slice(self.holdout))

    def train_batches(
        self, batch_size: int, aug: Callable | None = None, mixing: Mixing | None = None, seed: int = 0, **options
    ) -> "Batches":
        """Return shuffled, augmented and mixed batches of the training images.

        Args:
            aug, mixing, seed, options: see `Batches`; `options` are `workers` and `share`.

        Raises:
            InputError: there are fewer images than a batch, `aug` or `mixing` doesn't fit their size, or the
                validation images have other classes.
        """
        if self.holdout is None:
            train, val = self.whole("train"), self.whole("val")
            if (train.class_names, train.label_names) != (val.class_names, val.label_names):
                raise InputError(f"the training and validation images of {self.name} have different classes")
        if not self.mirrors and getattr(aug, "flip", "none") != "none":
            logging.getLogger(__name__).info("%s: flip is off, because mirroring would change the classes", self.data)
            aug = replace(aug, flip="none")
        options |= {"aug": None if aug == AffineAugmentation() else aug, "mixing": mixing}
        return self._batches(self.train, batch_size, training=True, seed=seed, **options)

    def val_batches(self, batch_size: int, **options) -> "Batches":
        """Return batches of the validation images, in order; `options` are `workers` and `share`."""
        return self._batches(self.val, batch_size, **options)

    def test_batches(self, batch_size: int, **options) -> "Batches":
        """Return batches of all images of `evaluation_split`, in order, regardless of `limit` and `holdout`."""
        return self._batches(self.whole(self.evaluation_split), batch_size, **options)

    def normalize_by(self, preprocessor: Normalization) -> None:
        """Normalize images by the `preprocessor` of a checkpoint, so that the training images aren't needed."""
        self.__dict__["normalization"] = preprocessor

    def digest(self) -> str:
        """Return the SHA-256 of the images to train and validate on, with labels and normalization, in hexadecimal."""
        return hashlib.sha256("".join(map(self.digest_of, (self.train, self.val))).encode()).hexdigest()

    def digest_of(self, images: ImageSet) -> str:
        """Return the SHA-256 of `images` and their normalization, in hexadecimal."""
        digest = hashlib.sha256(images.digest().encode())
        digest.update(self.normalization.parameters.tobytes())
        return digest.hexdigest()

    def _batches(self, images: ImageSet, batch_size: int, **options) -> "Batches":
        from pipeline.io.batches import Batches

        return Batches(images, batch_size, preprocessors=[self.normalization], **options)

    def _select(self, split: str, part: slice) -> ImageSet:
        """Return the `part` of a fixed shuffle of a split's images."""
        whole = self.whole(split)
        if not self.is_subset:
            return whole
        if split == "train" and self.holdout is not None and self.holdout >= len(whole):
            raise InputError(f"`holdout` {self.holdout}: expected fewer than the {len(whole)} training images")
        rows = randomness.permutation(0, 0, len(whole))[part]
        return whole.subset(rows if self.keeps_shuffle else np.sort(rows))
