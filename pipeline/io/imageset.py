"""Labelled images, wherever they lie, read into images of the size that a network takes."""

import hashlib
from collections.abc import Sequence

import numpy as np

from pipeline.utils import memory


class ImageSet:
    """Labelled images in a fixed order, read by their positions. A subclass gives what is missing here.

    Attributes:
        labels: integer array (n,), 0 to classes - 1.
        class_names: what people call the classes.
        label_names: what stands for each class in the source of the data, where that is something else.
        image_shape: height, width and channels of an image as a network takes it.
    """

    labels: np.ndarray
    class_names: tuple[str, ...]
    label_names: tuple[str, ...]
    image_shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.labels)

    def stored(self, rows: np.ndarray) -> np.ndarray:
        """The images (m, height, width, channels) at `rows` (m,), uint8 or float32; called from several threads."""
        raise NotImplementedError

    def read(self, rows: np.ndarray, augmentation=None, draws: np.ndarray | None = None) -> np.ndarray:
        """The images at `rows` as a network takes them, varied by `augmentation` as `draws` say.

        One step, so that images that are kept encoded, of any size, can be decoded and cropped to the network's size in
        it: those override this, not `stored`.
        """
        images = self.stored(rows)
        return images if augmentation is None else augmentation(images, draws)

    def choose(self, rows: np.ndarray) -> "ImageSet":
        """Those at `rows`, in that order, as a set of their own."""
        raise NotImplementedError

    def digest(self) -> str:
        """SHA-256 over images, labels and class names, in hexadecimal: the same digest, the same data."""
        raise NotImplementedError


class ArrayImages(ImageSet):
    """Images in memory, an array (n, height, width, channels)."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> None:
        self.images = images
        self.labels = labels
        self.class_names = self.label_names = tuple(class_names)
        self.image_shape = images.shape[1:]

    def stored(self, rows: np.ndarray) -> np.ndarray:
        images = memory.empty((len(rows), *self.image_shape), self.images.dtype)
        # Any mode but the default writes straight into `out`.
        return self.images.take(rows, axis=0, out=images, mode="clip")

    def choose(self, rows: np.ndarray) -> "ArrayImages":
        return ArrayImages(self.images[rows], self.labels[rows], self.class_names)

    def digest(self) -> str:
        digest = hashlib.sha256(repr((self.images.shape, self.class_names)).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()

    def mean(self) -> np.ndarray:
        """The mean image, float32 (height, width, channels), 0 to 255."""
        return self.images.mean(axis=0, dtype=np.float64).astype(np.float32)
