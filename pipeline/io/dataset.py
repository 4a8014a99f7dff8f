"""A labelled image data set held in memory."""

from dataclasses import dataclass, replace

import numpy as np


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

    def limit(self, count: int) -> "Dataset":
        """The first `count` training and `count` test images after a fixed shuffle; all where there are fewer."""
        train = np.random.default_rng(0).permutation(len(self.train_labels))[:count]
        test = np.random.default_rng(0).permutation(len(self.test_labels))[:count]
        return replace(
            self,
            train_images=self.train_images[train],
            train_labels=self.train_labels[train],
            test_images=self.test_images[test],
            test_labels=self.test_labels[test],
        )

    def mean_image(self) -> np.ndarray:
        """The mean of the training images, float32 (height, width, channels), 0 to 255."""
        return self.train_images.mean(axis=0, dtype=np.float64).astype(np.float32)
