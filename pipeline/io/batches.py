"""Batches of images for `fit`, `evaluate` and `predict`."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import keras
import numpy as np

from pipeline.errors import InputError
from pipeline.io.dataset import Dataset
from pipeline.preprocessing.augmentation import AffineAugmentation
from pipeline.utils import randomness


class ArrayBatches(keras.utils.PyDataset):
    """Images in memory as batches of (float32 images, mean subtracted; float32 one-hot labels).

    With `training`, the order and the augmentation are functions of (seed, epoch, index), and the tail of an epoch
    shorter than a batch is left out. Without it, every image comes once, in order. Tell a training set its epoch
    with `set_epoch` before that epoch's first batch; it never counts by itself.

    Args:
        images: uint8 array (n, height, width, channels).
        labels: integer array (n,), 0 to classes - 1.
        classes: number of classes.
        mean: float32 mean image (height, width, channels), subtracted from every image.
        batch_size: images a batch, at least 1.
        training: whether to shuffle and augment.
        seed: of the order and the augmentation.
        augmentation: variation of the training images, or None.
        workers: threads that prepare batches ahead of the one asked for; any number gives the same batches.

    Raises:
        InputError: (a `ValueError`) no batch can be made.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        classes: int,
        mean: np.ndarray,
        batch_size: int,
        training: bool = False,
        seed: int = 0,
        augmentation: AffineAugmentation | None = None,
        workers: int = 1,
    ) -> None:
        # Keras' own workers would hand batches that it drew to learn their shapes to the first epoch as well.
        super().__init__(workers=1)
        if training and len(images) < batch_size:
            raise InputError(f"{len(images)} training images are fewer than one batch of {batch_size}")
        self.images = images
        self.labels = labels
        self.classes = classes
        self.mean = mean
        self.batch_size = batch_size
        self.training = training
        self.seed = seed
        self.augmentation = augmentation
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
        self._ahead: dict[int, Future] = {}
        self._depth = 2 * workers
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Make the batches those of `epoch`, the number of completed epochs."""
        self.epoch = epoch
        self._ahead.clear()
        count = len(self.images)
        self._order = randomness.permutation(self.seed, epoch, count) if self.training else np.arange(count)

    @property
    def num_batches(self) -> int:
        whole, tail = divmod(len(self.images), self.batch_size)
        return whole if self.training else whole + bool(tail)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        for following in range(index, min(index + self._depth, self.num_batches)):
            if following not in self._ahead:
                rows = self._order[following * self.batch_size : (following + 1) * self.batch_size]
                self._ahead[following] = self._pool.submit(self._make, self.epoch, rows)
        return self._ahead.pop(index).result()

    def _make(self, epoch: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = self.images[rows]
        if self.training and self.augmentation is not None:
            images = self.augmentation(images, randomness.uniforms(self.seed, epoch, rows, self.augmentation.DRAWS))
        one_hot = np.zeros((len(rows), self.classes), np.float32)
        one_hot[np.arange(len(rows)), self.labels[rows]] = 1.0
        return images - self.mean, one_hot


def train_and_test_batches(
    dataset: Dataset, augmentation: AffineAugmentation, batch_size: int, seed: int, workers: int
) -> tuple[ArrayBatches, ArrayBatches]:
    """The training batches of `dataset`, augmented, and its test batches, both less the mean training image."""
    if not dataset.mirrors:
        augmentation = replace(augmentation, horizontal_flip=False)
    shared = partial(
        ArrayBatches, classes=len(dataset.classes), mean=dataset.mean_image(), batch_size=batch_size, workers=workers
    )
    return (
        shared(dataset.train_images, dataset.train_labels, training=True, seed=seed, augmentation=augmentation),
        shared(dataset.test_images, dataset.test_labels),
    )
