"""A data set of arrays in memory."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from pipeline.data.source import DataSource
from pipeline.errors import InputError
from pipeline.io.imageset import ArrayImages
from pipeline.preprocessing import MeanImagePreprocessor

ImagesAndLabels = tuple[np.ndarray, np.ndarray]


class ArraySource(DataSource):
    """Images and labels in memory, minus the mean training image.

    Args:
        train: images (n, height, width, channels), uint8 or float32, and their labels, integers (n,) from 0 to
            classes - 1.
        val: the same for validation and test.
        class_names: names of the classes in the order of their labels; None for "0", "1", ...
        name: name of the data set in checkpoints: 1 to 100 ASCII letters, digits and underscores.

    Raises:
        InputError: (a `ValueError`) images and labels don't fit together, or a label is out of range.
    """

    def __init__(
        self,
        train: ImagesAndLabels,
        val: ImagesAndLabels,
        class_names: Sequence[str] | None = None,
        name: str = "arrays",
    ) -> None:
        super().__init__()
        self.name = name
        if class_names is None:
            class_names = tuple(map(str, range(1 + max(int(np.max(labels, initial=0)) for _, labels in (train, val)))))
        self._images = {
            split: _checked(split, *(np.asarray(array) for array in arrays), class_names)
            for split, arrays in {"train": train, "val": val}.items()
        }
        shapes = [images.image_shape for images in self._images.values()]
        if shapes[0] != shapes[1]:
            raise InputError(f"train images have shape {shapes[0]}, val images {shapes[1]}; expected the same")

    def load(self, split: str) -> ArrayImages:
        return self._images["train" if split == "train" else "val"]

    @cached_property
    def normalization(self) -> MeanImagePreprocessor:
        return MeanImagePreprocessor(self.train.mean())


def _checked(split: str, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> ArrayImages:
    if images.ndim != 4 or images.dtype not in (np.uint8, np.float32) or not len(images):
        raise InputError(
            f"{split} images are {images.dtype} {images.shape}; expected uint8 or float32 (n, height, width, channels)"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise InputError(
            f"{split} labels are {labels.dtype} {labels.shape}; expected {len(images)} integers ({len(images)},)"
        )
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise InputError(
            f"{split} labels are {labels.min()} to {labels.max()}; expected 0 to {len(class_names) - 1}, one per class"
        )
    return ArrayImages(images, labels.astype(np.int64), class_names)
