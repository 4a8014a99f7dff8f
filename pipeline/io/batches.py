"""Batches of images for `fit`, `evaluate` and `predict`."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from threading import RLock

import keras
import numpy as np

from pipeline.errors import InputError
from pipeline.io.imageset import ImageSet
from pipeline.utils import randomness


class Batches(keras.utils.PyDataset):
    """Labelled images as batches of (float32 images, labels).

    With `training`, the order of the samples is a function of (seed, epoch), the augmentation of each one of
    (seed, epoch, index), the mixing of a batch one of (seed, epoch, number of the batch), and the tail of an epoch
    shorter than a batch is left out. Without it, every sample comes once, in order. Tell a training set its epoch with
    `set_epoch` before that epoch's first batch; it never counts.
    Keras takes it as it is, on TensorFlow better as `for_keras()`.

    Several processes take a `share` each, (index, count): of each batch the images from index / count to
    (index + 1) / count. Put together the shares are the batch of one process, to the bit; what one reads beyond its own
    images are their partners in Mixup and CutMix, unless `mix_group` keeps those within the share.

    Args:
        images: the labelled images.
        batch_size: images a batch, of all shares together, at least 1.
        preprocessors: what is done to every image, in this order: objects with `preprocess(image)`, called for each
            image, or with `preprocess_batch(images)`, which is faster.
        aug: varies the images as they are read, before the preprocessors: called with images and what
            `aug.draws(seed, epoch, indices)` gives (see `pipeline.preprocessing.AffineAugmentation`). None varies
            nothing.
        mixing: what is done to a batch at last, images and one-hot labels (see `pipeline.preprocessing.Mixing`).
        binarize: labels as float32 one-hot rows (batch, classes); False gives the integers.
        training: whether to shuffle.
        seed: of the order and the augmentation.
        workers: threads that prepare batches ahead of the one asked for; any number gives the same batches.
        share: (index, count), 0 up to but not count; in training count divides `batch_size`.
        mix_group: how many neighbours in a batch Mixup and CutMix draw partners among; all if None.

    Attributes:
        num_images: number of samples.
        epoch: number of completed epochs, as it was told; 0 at first.
        failure: why a batch could not be made; on TensorFlow another exception reaches the caller of `fit` (see
            `own_failures`).

    Raises:
        InputError: (a `ValueError`) no batch can be made.
    """

    def __init__(
        self,
        images: ImageSet,
        batch_size: int,
        *,
        preprocessors: Sequence = (),
        aug: Callable | None = None,
        mixing: Callable | None = None,
        binarize: bool = True,
        training: bool = False,
        seed: int = 0,
        workers: int = 1,
        share: tuple[int, int] = (0, 1),
        mix_group: int | None = None,
    ) -> None:
        # Keras' own workers would hand batches that it drew to learn their shapes to the first epoch as well.
        super().__init__(workers=1)
        for name, value in {"batch_size": batch_size, "workers": workers}.items():
            if value < 1:
                raise InputError(f"{name} is {value}; expected a number of at least 1")
        if not 0 <= share[0] < share[1]:
            raise InputError(f"share is {share}; expected (index, count), index from 0 up to but not count")
        for what, size in {"shares": share[1], "images in a mix_group": mix_group or 1}.items():
            if training and batch_size % size:
                raise InputError(f"batch_size is {batch_size}; expected a multiple of the {size} {what}")
        total = len(images)
        if training and total < batch_size:
            raise InputError(f"{total} training images are fewer than one batch of {batch_size}; lower `batch_size`")
        if mixing is not None and not binarize:
            raise InputError("mixing takes one-hot labels; expected binarize")
        for variation in (aug, mixing):
            if hasattr(variation, "check"):
                variation.check(*images.image_shape[:2])
        self.images = images
        self.labels = images.labels
        self.class_names = images.class_names
        self.batch_size = batch_size
        self.preprocessors = preprocessors
        self.aug = aug
        self.mixing = mixing
        self.binarize = binarize
        self.training = training
        self.seed = seed
        self.share = share
        self.mix_group = mix_group
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
        self._ahead: dict[int, Future] = {}
        self.failure: Exception | None = None
        self._lock = RLock()
        self._depth = 2 * workers
        self.set_epoch(0)

    @property
    def num_images(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self.images.image_shape

    @property
    def steps(self) -> int:
        """Number of batches in a whole epoch."""
        whole, tail = divmod(self.num_images, self.batch_size)
        return whole if self.training else whole + bool(tail)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Make the batches those of `epoch`, the number of completed epochs, from `first_batch` on."""
        self.epoch = epoch
        self.first_batch = first_batch
        self._passed = first_batch
        self._ahead.clear()
        samples = self.num_images
        self._order = randomness.permutation(self.seed, epoch, samples) if self.training else np.arange(samples)

    def __len__(self) -> int:
        return self.steps - self.first_batch

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        index += self.first_batch
        future = self._future(index)
        try:
            batch = future.result()
        except Exception as error:
            self.failure = error
            raise
        with self._lock:
            self._ahead.pop(index, None)
            self._passed = index + 1
        return batch

    def wait_for(self, index: int) -> None:
        """Return once the batch `index`, of batches taken in order, is ready or taken; raise why it can't be made.

        What of a training step doesn't depend on its batch TensorFlow has done by the time it finds that there is none.
        """
        index += self.first_batch
        with self._lock:
            if index < self._passed:
                return
            future = self._future(index)
        if error := future.exception():
            self.failure = error
            raise error

    def _future(self, index: int) -> Future:
        """The batch `index`, under way, and those that follow it."""
        with self._lock:
            # Whoever asks out of order gets the same batches, and what was made ahead in vain is let go.
            self._ahead = {key: batch for key, batch in self._ahead.items() if index <= key < index + self._depth}
            for following in range(index, min(index + self._depth, self.steps)):
                if following not in self._ahead:
                    rows = self._order[following * self.batch_size : (following + 1) * self.batch_size]
                    self._ahead[following] = self._pool.submit(self._make, self.epoch, following, rows)
            return self._ahead[index]

    def for_keras(self):
        """What `fit`, `evaluate` and `predict` are to be given: themselves, on TensorFlow a `tf.data.Dataset` of them.

        The dataset that Keras makes of a `PyDataset` there tunes itself in a thread, which sleeps longer and longer.
        The end of an epoch waits now and then until it wakes, as long again as the epoch took or a minute.
        """
        if keras.backend.backend() != "tensorflow":
            return self
        import tensorflow as tf

        images = tf.TensorSpec((None, *self.image_shape), tf.float32)
        one_hot, whole = ((None, self.classes), tf.float32), ((None,), self.labels.dtype)
        labels = tf.TensorSpec(*(one_hot if self.binarize else whole))
        dataset = tf.data.Dataset.from_generator(
            lambda: (self[index] for index in range(len(self))), output_signature=(images, labels)
        )
        options = tf.data.Options()
        options.autotune.enabled = False
        return dataset.apply(tf.data.experimental.assert_cardinality(len(self))).prefetch(1).with_options(options)

    def preprocess(self, images: np.ndarray) -> np.ndarray:
        """What the network is given for `images` (n, height, width, channels), in float32."""
        for preprocessor in self.preprocessors:
            if hasattr(preprocessor, "preprocess_batch"):
                images = preprocessor.preprocess_batch(images)
            else:
                images = np.stack([preprocessor.preprocess(image) for image in images])
        return images.astype(np.float32, copy=False)

    def generator(self, passes: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The batches of `passes` epochs, from the present one on, as a plain generator; without end if None.

        It tells this object each epoch: run one at a time, and let nobody else tell it another meanwhile.
        """
        for epoch in count(self.epoch) if passes is None else range(self.epoch, self.epoch + passes):
            self.set_epoch(epoch)
            for index in range(len(self)):
                yield self[index]

    def close(self) -> None:
        """Let go of the threads; no batch can be made afterwards."""
        self._pool.shutdown(cancel_futures=True)

    def _make(self, epoch: int, batch: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """This share of the batch of the images `rows` (n,)."""
        index, shares = self.share
        here = np.arange(index * len(rows) // shares, (index + 1) * len(rows) // shares)
        mix = self.mixing and self.mixing.draw(self.seed, epoch, batch, len(rows), self.mix_group)
        if mix and shares > 1:  # whose partners may lie in others
            partners = mix.partners[here]
            here = np.concatenate([here, np.setdiff1d(partners, here, assume_unique=True)])
            place = np.empty(len(rows), int)
            place[here] = np.arange(len(here))
            mix = mix._replace(partners=place[partners])
        rows = rows[here]
        draws = None if self.aug is None else self.aug.draws(self.seed, epoch, rows)
        images, labels = self.preprocess(self.images.read(rows, self.aug, draws)), self.labels[rows]
        if self.binarize:
            labels = np.equal(labels[:, None], np.arange(self.classes)).astype(np.float32)
        if self.mixing is not None:
            images, labels = self.mixing(images, labels, self.seed, epoch, rows, mix)
        return images, labels


def predict(model: keras.Model, batches: Batches) -> np.ndarray:
    """The scores (n, classes) that `model` gives each image of `batches`, in order; raises why one can't be read."""
    with own_failures(batches):
        return model.predict(batches.for_keras(), verbose=0)


@contextmanager
def own_failures(*sources: Batches) -> Iterator[None]:
    """Raise why a batch of `sources` could not be made, in place of what TensorFlow makes of it."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.startswith("tensorflow"):
            for batches in sources:
                if batches.failure:
                    raise batches.failure from None
        raise
