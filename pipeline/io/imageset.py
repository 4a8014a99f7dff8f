"""Labelled images in a fixed order, in memory or on disk."""

import hashlib
from collections.abc import Sequence

import numpy as np

from pipeline.utils import memory


class ImageSet:
    """Labelled images in a fixed order, read by index. The base class of image sets.

    Attributes:
        labels: integers (n,), 0 to classes - 1.
        class_names: readable names of the classes.
        label_names: the source's names of the classes, such as WordNet ids.
        image_shape: height, width and channels of the images that the network gets.
    """

    labels: np.ndarray
    class_names: tuple[str, ...]
    label_names: tuple[str, ...]
    image_shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, rows: np.ndarray) -> np.ndarray:
        """Return the images (m, height, width, channels) at `rows` (m,), uint8 or float32. Must be thread-safe."""
        raise NotImplementedError

    def read(self, rows: np.ndarray, augmentation=None, draws: np.ndarray | None = None) -> np.ndarray:
        """Return the images at `rows` in the network's size, with `augmentation` applied according to `draws`.

        Sets of encoded images of any size override this, to decode, crop and augment in one step; others define `load`.
        """
        images = self.load(rows)
        return images if augmentation is None else augmentation(images, draws)

    def subset(self, rows: np.ndarray) -> "ImageSet":
        """Return the images at `rows`, in that order, as a set."""
        raise NotImplementedError

    def digest(self) -> str:
        """Return the SHA-256 of images, labels and class names, in hexadecimal."""
        raise NotImplementedError


class ArrayImages(ImageSet):
    """Images in memory: uint8 or float32 (n, height, width, channels), with their labels, integers (n,)."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> None:
        self.images = images
        self.labels = labels
        self.class_names = self.label_names = tuple(class_names)
        self.image_shape = images.shape[1:]

    def load(self, rows: np.ndarray) -> np.ndarray:
        images = memory.empty((len(rows), *self.image_shape), self.images.dtype)
        # The default mode would buffer instead of writing to `out` directly.
        return self.images.take(rows, axis=0, out=images, mode="clip")

    def subset(self, rows: np.ndarray) -> "ArrayImages":
        return ArrayImages(self.images[rows], self.labels[rows], self.class_names)

    def digest(self) -> str:
        digest = hashlib.sha256(repr((self.images.shape, self.class_names)).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()

    def mean(self) -> np.ndarray:
        """Return the mean image, float32 (height, width, channels)."""
        return self.images.mean(axis=0, dtype=np.float64).astype(np.float32)
