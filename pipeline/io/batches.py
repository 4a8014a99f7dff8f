"""Make batches of images for `fit`, `evaluate` and `predict`."""

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
    """Labelled images as batches of float32 images (batch, height, width, channels) and labels.

    In training, the order of the samples is a function of (seed, epoch), the augmentation of a sample of (seed, epoch,
    index), and the mixing of a batch of (seed, epoch, batch); samples that don't fill a last batch are dropped. In
    evaluation every sample comes once, in order. Call `set_epoch` before the first batch of each training epoch: this
    class doesn't count epochs. Pass the result of `for_keras()` to Keras.

    With several processes, each takes a `share` (index, count) of every batch: the images from index / count to
    (index + 1) / count of it. Together the shares equal the batch of one process exactly. For Mixup and CutMix a
    process also reads the partners of its images, unless `mix_group` keeps partners within the share.

    Args:
        images: the labelled images.
        batch_size: images per batch, of all shares together, at least 1.
        preprocessors: applied to the images in this order: objects with `preprocess(image)`, or with the faster
            `preprocess_batch(images)`.
        aug: augmentation applied before the preprocessors, called with images and the result of
            `aug.draws(seed, epoch, indices)` (see `pipeline.preprocessing.AffineAugmentation`); None for none.
        mixing: applied last, to the images and one-hot labels of a batch (see `pipeline.preprocessing.Mixing`).
        binarize: True for float32 one-hot labels (batch, classes), False for integers (batch,).
        training: True for shuffled training batches, False for evaluation.
        seed: seed of order, augmentation and mixing.
        workers: number of threads that prepare batches ahead; any number gives the same batches.
        share: (index, count), with 0 <= index < count; in training, count divides `batch_size`.
        mix_group: number of consecutive images, a divisor of `batch_size`, within which Mixup and CutMix draw partners;
            None for the whole batch.

    Attributes:
        num_images: number of samples.
        epoch: number of completed epochs, set by `set_epoch`.
        threads: number of threads that prepare batches.
        failure: the error that prevented a batch; on TensorFlow `fit` raises another one (see `data_errors`).

    Raises:
        InputError: (a `ValueError`) an argument is out of range, or there are fewer images than a training batch.
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
        # Keras draws batches to infer shapes. Its own workers would serve those again in the first epoch.
        super().__init__(workers=1)
        for name, value in {"batch_size": batch_size, "workers": workers}.items():
            if value < 1:
                raise InputError(f"{name} is {value}; expected a number of at least 1")
        if not 0 <= share[0] < share[1]:
            raise InputError(f"share is {share}; expected (index, count) with 0 <= index < count")
        for what, size in {"number of shares": share[1], "mix_group": mix_group or 1}.items():
            if training and batch_size % size:
                raise InputError(f"batch_size is {batch_size}; expected a multiple of the {what}, {size}")
        total = len(images)
        if training and total < batch_size:
            raise InputError(f"{total} training images don't fill a batch of {batch_size}; lower `batch_size`")
        if mixing is not None and not binarize:
            raise InputError("mixing needs one-hot labels; expected binarize=True")
        for transform in (aug, mixing):
            if hasattr(transform, "check"):
                transform.check(*images.image_shape[:2])
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
        self.threads = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
        self._ahead: dict[int, Future] = {}
        self.failure: Exception | None = None
        self._lock = RLock()
        self._depth = workers + min(workers, 2)  # one for each thread, and some that are ready
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
        """Number of batches per epoch."""
        whole, tail = divmod(self.num_images, self.batch_size)
        return whole if self.training else whole + bool(tail)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Switch to the epoch that follows `epoch` completed ones, starting at its batch `first_batch`."""
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
        """Wait until the batch `index` is ready or taken; raise the error that prevents it.

        Without this, TensorFlow would meet the error inside a training step, after it has run the parts of the step
        that don't depend on the batch.
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
        """Start the batch `index` and those that follow; return its future."""
        with self._lock:
            # After an out-of-order request, drop the batches prepared for the old position.
            self._ahead = {key: batch for key, batch in self._ahead.items() if index <= key < index + self._depth}
            for following in range(index, min(index + self._depth, self.steps)):
                if following not in self._ahead:
                    rows = self._rows(following)
                    self._ahead[following] = self._pool.submit(self._make, self.epoch, following, rows)
            return self._ahead[index]

    def make(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Make a batch of the current epoch in this thread, counted from the start of the epoch."""
        return self._make(self.epoch, batch, self._rows(batch))

    def _rows(self, batch: int) -> np.ndarray:
        """Return the indices of the images of `batch`, of all shares."""
        return self._order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def for_keras(self):
        """Return the object to pass to `fit`, `evaluate` and `predict`: self, or on TensorFlow a `tf.data.Dataset`.

        The dataset that Keras creates from a `PyDataset` tunes itself in a thread that sleeps for longer and longer.
        The end of an epoch sometimes waits for that thread, up to a minute or as long as the epoch took.
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
        """Apply the preprocessors to `images` (n, height, width, channels); return float32."""
        for preprocessor in self.preprocessors:
            if hasattr(preprocessor, "preprocess_batch"):
                images = preprocessor.preprocess_batch(images)
            else:
                images = np.stack([preprocessor.preprocess(image) for image in images])
        return images.astype(np.float32, copy=False)

    def generator(self, passes: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the batches of `passes` epochs, starting with the current one; without end if None.

        It calls `set_epoch`, so use one generator at a time.
        """
        for epoch in count(self.epoch) if passes is None else range(self.epoch, self.epoch + passes):
            self.set_epoch(epoch)
            for index in range(len(self)):
                yield self[index]

    def close(self) -> None:
        """End the threads; no batch can be made afterwards."""
        self._pool.shutdown(cancel_futures=True)

    def _make(self, epoch: int, batch: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Make this share of the batch of the images `rows` (n,)."""
        index, shares = self.share
        here = np.arange(index * len(rows) // shares, (index + 1) * len(rows) // shares)
        mix = self.mixing and self.mixing.draw(self.seed, epoch, batch, len(rows), self.mix_group)
        if mix and shares > 1:  # partners may be in other shares
            partners = mix.partners[here]
            here = np.concatenate([here, np.setdiff1d(partners, here, assume_unique=True)])
            position = np.empty(len(rows), int)
            position[here] = np.arange(len(here))
            mix = mix._replace(partners=position[partners])
        rows = rows[here]
        draws = None if self.aug is None else self.aug.draws(self.seed, epoch, rows)
        images, labels = self.preprocess(self.images.read(rows, self.aug, draws)), self.labels[rows]
        if self.binarize:
            labels = np.equal(labels[:, None], np.arange(self.classes)).astype(np.float32)
        if self.mixing is not None:
            images, labels = self.mixing(images, labels, self.seed, epoch, rows, mix)
        return images, labels


def scores(model: keras.Model, batches: Batches) -> Iterator[np.ndarray]:
    """Yield the scores of `model`, float32 (batch, classes), for the images of each batch of `batches`, in order."""
    size = min(batches.batch_size, batches.num_images)
    for index in range(len(batches)):
        images, _ = batches[index]
        yield scores_of(model, images, size)


def scores_of(model: keras.Model, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Return the scores of `model`, float32 (n, classes), for up to `batch_size` preprocessed images."""
    count = len(images)
    if count < batch_size:  # or the step would be compiled again
        images = np.resize(images, (batch_size, *images.shape[1:]))
    return model.predict_on_batch(images)[:count]


@contextmanager
def data_errors(*sources: Batches) -> Iterator[None]:
    """Raise the original error of a batch of `sources` instead of the TensorFlow error that wraps it."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.startswith("tensorflow"):
            for batches in sources:
                if batches.failure:
                    raise batches.failure from None
        raise
