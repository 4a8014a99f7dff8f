"""Batches: which samples, in which order, under which epoch."""

import numpy as np
import pytest

from pipeline.io.batches import ArrayBatches, train_and_test_batches
from pipeline.io.dataset import Dataset
from pipeline.preprocessing import AffineAugmentation


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 8, 8, 3), np.uint8)
    return Dataset(images, np.arange(50) % 3, images[:10], np.arange(10) % 3, ("a", "b", "c"))


def make(dataset, **options):
    return ArrayBatches(
        dataset.train_images, dataset.train_labels, classes=3, mean=dataset.mean_image(), batch_size=16, **options
    )


def epoch_of(batches):
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_evaluation_scores_every_sample_once_in_order(dataset):
    images, labels = epoch_of(make(dataset))
    np.testing.assert_array_equal(images, dataset.train_images - dataset.mean_image())
    np.testing.assert_array_equal(labels.argmax(axis=1), dataset.train_labels)
    assert images.dtype == labels.dtype == np.float32


def test_training_sees_each_sample_at_most_once_and_drops_the_tail(dataset):
    images, labels = epoch_of(make(dataset, training=True))
    assert len(images) == 48
    rows = {image.tobytes() for image in images}
    assert len(rows) == 48
    assert rows <= {image.tobytes() for image in dataset.train_images - dataset.mean_image()}
    assert labels.sum(axis=1).tolist() == [1.0] * 48


def test_an_epoch_is_the_same_whatever_came_before(dataset):
    augmentation = AffineAugmentation(0.1, 0.1, True)
    straight, jumped = (make(dataset, training=True, augmentation=augmentation) for _ in range(2))
    for epoch in range(4):
        straight.set_epoch(epoch)
        seen = epoch_of(straight)
    jumped.set_epoch(3)
    np.testing.assert_array_equal(epoch_of(jumped)[0], seen[0])
    jumped.set_epoch(2)
    assert not np.array_equal(epoch_of(jumped)[0], seen[0])


def test_digits_are_never_mirrored(dataset):
    augmentation = AffineAugmentation(0.1, 0.1, True)
    digits = Dataset(
        *[getattr(dataset, f"{s}_{p}") for s in ("train", "test") for p in ("images", "labels")],
        dataset.classes,
        mirrors=False,
    )
    train, _ = train_and_test_batches(digits, augmentation, 16, 0, 1)
    assert train.augmentation == AffineAugmentation(0.1, 0.1, False)
    train, test = train_and_test_batches(dataset, augmentation, 16, 0, 1)
    assert train.augmentation == augmentation
    assert not test.training


def test_fewer_images_than_a_batch_are_refused(dataset):
    with pytest.raises(ValueError, match="50 training images are fewer than one batch of 64"):
        ArrayBatches(
            dataset.train_images,
            dataset.train_labels,
            classes=3,
            mean=dataset.mean_image(),
            batch_size=64,
            training=True,
        )
