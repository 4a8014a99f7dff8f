"""A labelled image data set held in memory."""

from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import InputError


@dataclass(frozen=True)
class Dataset:
    """Training and test images, uint8 (n, height, width, channels), with integer labels (n,), 0 to classes - 1."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]
    # Whether a mirrored image still shows its class: true of things, not of digits.
    mirrors: bool = True

    def choose(self, limit: int | None, holdout: int | None) -> "Dataset":
        """A part of the data, by a fixed shuffle.

        Args:
            limit: this many training images, and as many test images; all if None or where there are fewer.
            holdout: so many training images, all of them, take the place of the test images, and are not trained on.

        Raises:
            InputError: nothing would be left to train on.
        """
        if limit is None and holdout is None:
            return self
        train, test = (np.random.default_rng(0).permutation(len(y)) for y in (self.train_labels, self.test_labels))
        if holdout is not None and holdout >= len(train):
            raise InputError(f"--holdout {holdout} leaves nothing of {len(train)} training images; expected fewer")
        images, labels, test = self.test_images, self.test_labels, test[:limit]
        if holdout is not None:
            images, labels, test, train = self.train_images, self.train_labels, train[:holdout], train[holdout:]
        train = train[:limit]
        return replace(
            self,
            train_images=self.train_images[train],
            train_labels=self.train_labels[train],
            test_images=images[test],
            test_labels=labels[test],
        )

    def mean_image(self) -> np.ndarray:
        """The mean of the training images, float32 (height, width, channels), 0 to 255."""
        return self.train_images.mean(axis=0, dtype=np.float64).astype(np.float32)
