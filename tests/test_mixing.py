"""Cutout, Mixup, CutMix and label smoothing against their papers' formulas."""

import numpy as np
import pytest
from conftest import load_cifar10
from messages import naming

from pipeline.data import CIFAR10
from pipeline.io import ArrayImages, Batches
from pipeline.preprocessing import Mixing

COUNT, CLASSES = 64, 10
SAMPLES = np.arange(1000, 1000 + COUNT)
# Every image has its own colour, which shows where pixels come from.
IMAGES = np.broadcast_to(np.arange(1, COUNT + 1, dtype=np.float32)[:, None, None, None], (COUNT, 32, 24, 3))
LABELS = np.eye(CLASSES, dtype=np.float32)[np.arange(COUNT) % CLASSES]


def mix(batch=0, seed=0, epoch=0, **pieces):
    mixing = Mixing(**pieces)
    return mixing(IMAGES.copy(), LABELS, seed, epoch, SAMPLES, mixing.draw(seed, epoch, batch, COUNT))


def test_cutout_erases_one_square_that_the_edges_may_cut_and_keeps_the_labels():
    images, labels = mix(cutout=8)
    np.testing.assert_array_equal(labels, LABELS)
    areas = []
    for image, before in zip(images, IMAGES, strict=True):
        erased = (image == 0).all(axis=-1)
        np.testing.assert_array_equal(image[~erased], before[~erased])
        rows, columns = np.flatnonzero(erased.any(axis=1)), np.flatnonzero(erased.any(axis=0))
        assert erased[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 4 <= len(rows) <= 8
        assert 4 <= len(columns) <= 8
        areas.append(erased.sum())
    assert max(areas) == 64
    assert min(areas) < 64


def test_a_patch_belongs_to_the_sample_wherever_in_a_batch_it_stands():
    whole, _ = mix(cutout=8)
    backwards, _ = Mixing(cutout=8)(IMAGES[::-1].copy(), LABELS[::-1], 0, 0, SAMPLES[::-1], None)
    np.testing.assert_array_equal(backwards[::-1], whole)
    assert not np.array_equal(mix(cutout=8, epoch=1)[0], whole)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_blends_images_and_labels_at_one_ratio_out_of_beta(alpha):
    shares = []
    for batch in range(400):
        images, labels = mix(batch, mixup=alpha)
        colours = images[:, 0, 0, 0]
        np.testing.assert_array_equal(images, np.broadcast_to(colours[:, None, None, None], images.shape))
        np.testing.assert_allclose(labels.sum(axis=1), 1.0, rtol=1e-6)
        own = labels[np.arange(COUNT), np.arange(COUNT) % CLASSES]
        share = own.min()  # for images whose partner has another class
        # Partners are a permutation: their colours, recovered from the blend, are those of the batch.
        if share < 0.9:
            partners = (colours - share * IMAGES[:, 0, 0, 0]) / (1 - share)
            np.testing.assert_allclose(np.sort(partners), np.arange(1, COUNT + 1), atol=0.05)
        shares.append(share)
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)); five standard errors of 400 draws.
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(np.mean(shares) - 0.5) < 5 * np.sqrt(variance / 400)
    assert np.var(shares) == pytest.approx(variance, rel=0.25)


def test_cutmix_pastes_one_box_and_shares_the_label_by_what_is_left():
    areas = []
    for batch in range(200):
        images, labels = mix(batch, cutmix=1.0)
        pasted = (images != IMAGES).any(axis=(0, 3))
        rows, columns = pasted.any(axis=1), pasted.any(axis=0)
        np.testing.assert_array_equal(pasted, np.outer(rows, columns))
        if not pasted.any():
            continue
        partners = images[:, pasted][:, 0, 0]
        np.testing.assert_array_equal(np.sort(partners), np.arange(1, COUNT + 1))
        left = 1 - pasted.mean()
        expected = left * LABELS + (1 - left) * LABELS[partners.astype(int) - 1]
        np.testing.assert_allclose(labels, expected, atol=1e-6)
        areas.append(1 - left)
    assert max(areas) > 0.7
    assert min(areas) < 0.1


def test_with_both_each_batch_tosses_a_coin():
    # Mixup changes every pixel of an image with another partner; CutMix leaves some.
    blended = [(mix(batch, mixup=1.0, cutmix=1.0)[0] != IMAGES).all(axis=(1, 2, 3)).any() for batch in range(300)]
    assert 110 < sum(blended) < 190


def test_label_smoothing_spreads_evenly():
    images, labels = mix(label_smoothing=0.1)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_allclose(labels, LABELS * 0.9 + 0.01, rtol=1e-6)
    assert labels.dtype == np.float32


def test_a_batch_is_mixed_the_same_again_and_otherwise_in_another_place():
    everything = {"cutout": 6, "mixup": 0.5, "cutmix": 0.5, "label_smoothing": 0.1}
    images, labels = mix(3, 7, 2, **everything)
    again, same = mix(3, 7, 2, **everything)
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(labels, same)
    for changed in ({"batch": 4}, {"seed": 8}, {"epoch": 3}):
        other, _ = mix(**{"batch": 3, "seed": 7, "epoch": 2} | changed, **everything)
        assert not np.array_equal(other, images)


@pytest.mark.parametrize("alpha", [1e-3, 1e3])
def test_the_ratio_is_a_number_at_the_bounds_of_alpha(alpha):
    for batch in range(50):
        images, labels = mix(batch, mixup=alpha)
        assert np.isfinite(images).all()
        np.testing.assert_allclose(labels.sum(axis=1), 1.0, rtol=1e-6)


def test_mixing_asks_for_one_hot_labels():
    images = np.zeros((4, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=naming("mixing", "one-hot")):
        Batches(ArrayImages(images, np.zeros(4, int), ("a",)), 2, mixing=Mixing(mixup=1.0), binarize=False)


def test_evaluation_sees_images_as_they_are_and_training_mixes_after_the_mean_is_subtracted():
    class Less:
        def preprocess_batch(self, images):
            return images - np.float32(100)

    images = np.full((8, 8, 8, 3), 150, np.uint8)
    train = Batches(
        ArrayImages(images, np.zeros(8, int), ("a", "b")),
        8,
        mixing=Mixing(cutout=4),
        preprocessors=[Less()],
        training=True,
    )
    assert set(np.unique(train[0][0])) == {0.0, 50.0}
    source = CIFAR10("digits", limit=64)
    train = source.train_batches(64, mixing=Mixing(cutout=8, mixup=1.0, label_smoothing=0.1))
    test = source.val_batches(64)
    digits = load_cifar10("digits", limit=64)
    images, labels = test[0]
    np.testing.assert_array_equal(images, digits.test_images - digits.mean_image())
    np.testing.assert_array_equal(labels, np.eye(10)[digits.test_labels])
    assert train[0][1].max() < 1.0


def test_partners_are_drawn_among_the_neighbours_of_a_group():
    mixing = Mixing(mixup=1.0)
    whole, groups = mixing.draw(1, 2, 3, COUNT), mixing.draw(1, 2, 3, COUNT, group=16)
    np.testing.assert_array_equal(whole.partners, mixing.draw(1, 2, 3, COUNT, group=COUNT).partners)
    assert set(whole.partners) == set(groups.partners) == set(range(COUNT))
    np.testing.assert_array_equal(groups.partners // 16, np.arange(COUNT) // 16)
