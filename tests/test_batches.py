"""Batches: which samples, in which order, under which epoch."""

import numpy as np
import pytest

from pipeline.cli.recipe import Recipe
from pipeline.data.cifar10 import cifar10_batches
from pipeline.io.batches import ArrayBatches
from pipeline.preprocessing import AffineAugmentation, MeanImagePreprocessor


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8)


LABELS = np.arange(50) % 3
MEAN = np.random.default_rng(1).uniform(0, 255, (8, 8, 3)).astype(np.float32)


def make(images, **options):
    options = {"batch_size": 16, "preprocessors": [MeanImagePreprocessor(MEAN)]} | options
    return ArrayBatches(images, LABELS, ("a", "b", "c"), **options)


def epoch_of(batches):
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_evaluation_scores_every_sample_once_in_order(images):
    seen, labels = epoch_of(make(images))
    np.testing.assert_array_equal(seen, images - MEAN)
    np.testing.assert_array_equal(labels, np.eye(3)[LABELS])
    assert seen.dtype == labels.dtype == np.float32


def test_training_sees_each_sample_at_most_once_and_drops_the_tail(images):
    seen, labels = epoch_of(make(images, training=True, binarize=False))
    assert len(seen) == 48
    row_of = {image.tobytes(): row for row, image in enumerate(images - MEAN)}
    rows = [row_of[image.tobytes()] for image in seen]
    assert len(set(rows)) == 48
    np.testing.assert_array_equal(labels, LABELS[rows])


@pytest.mark.parametrize("workers", [1, 4])
def test_an_epoch_is_the_same_whatever_came_before(images, workers):
    aug = AffineAugmentation(width_shift_range=0.1, height_shift_range=0.1, flip="random")
    straight, jumped = make(images, training=True, aug=aug), make(images, training=True, aug=aug, workers=workers)
    for epoch in range(4):
        straight.set_epoch(epoch)
        seen = epoch_of(straight)
    jumped.set_epoch(3)
    np.testing.assert_array_equal(epoch_of(jumped)[0], seen[0])
    jumped.set_epoch(2)
    assert not np.array_equal(epoch_of(jumped)[0], seen[0])


def test_a_plain_generator_goes_through_the_epochs(images):
    batches = make(images, training=True)
    seen = [images for images, _ in batches.generator(passes=2)]
    assert len(seen) == 6
    batches.set_epoch(1)
    for ours, (theirs, _) in zip(seen[3:], batches, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    endless = batches.generator()
    for _ in range(10):
        next(endless)
    batches.close()


def test_a_preprocessor_may_know_single_images_only(images):
    class Halve:
        def preprocess(self, image):
            return image // 2

    seen, _ = epoch_of(make(images, preprocessors=[Halve()]))
    np.testing.assert_array_equal(seen, images // 2)


def test_digits_are_never_mirrored():
    recipe = Recipe(width_shift_range=0.1, flip="random")
    train, test = cifar10_batches("digits", recipe, limit=None, holdout=None, batch_size=16, seed=0, workers=1)
    assert train.aug == AffineAugmentation(width_shift_range=0.1)
    assert test.aug is None


def test_the_digest_names_the_data(images):
    digest = make(images).digest()
    assert digest == make(images.copy(), batch_size=3, training=True).digest()
    changed = images.copy()
    changed[7, 1, 2, 0] ^= 1
    assert make(changed).digest() != digest


def test_what_makes_no_batch_is_refused(images):
    with pytest.raises(ValueError, match="50 training images are fewer than one batch of 64"):
        make(images, batch_size=64, training=True)
    with pytest.raises(ValueError, match="batch_size is 0"):
        make(images, batch_size=0)


def test_batches_taken_out_of_order_are_the_same_and_pile_up_nothing(images):
    batches = make(images, training=True, batch_size=2, workers=2)
    expected = list(batches)
    for index in np.random.default_rng(0).permutation(25).tolist() * 3:
        np.testing.assert_array_equal(batches[index][0], expected[index][0])
        assert len(batches._ahead) <= 4
    with pytest.raises(IndexError):
        batches[25]


def test_an_epoch_may_begin_inside(images):
    batches = make(images, training=True)
    expected = list(batches)
    batches.set_epoch(0, first_batch=1)
    assert len(batches) == 2
    for ours, theirs in zip(batches, expected[1:], strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
