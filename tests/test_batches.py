"""The samples of batches, their order, and the epoch."""

import numpy as np
import pytest
from messages import naming

from pipeline.data import CIFAR10
from pipeline.io import ArrayImages, Batches
from pipeline.preprocessing import AffineAugmentation, MeanImagePreprocessor, Mixing


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8)


LABELS = np.arange(50) % 3
MEAN = np.random.default_rng(1).uniform(0, 255, (8, 8, 3)).astype(np.float32)


def make(images, **options):
    options = {"batch_size": 16, "preprocessors": [MeanImagePreprocessor(MEAN)]} | options
    return Batches(ArrayImages(images, LABELS, ("a", "b", "c")), **options)


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
    source = CIFAR10("digits")
    train = source.train_batches(16, AffineAugmentation(width_shift_range=0.1, flip="random"))
    assert train.aug == AffineAugmentation(width_shift_range=0.1)
    assert source.train_batches(16, AffineAugmentation(flip="random")).aug is None
    assert source.val_batches(16).aug is None


def test_the_digest_names_the_data(images):
    def digest(images):
        return ArrayImages(images, LABELS, ("a", "b", "c")).digest()

    changed = images.copy()
    changed[7, 1, 2, 0] ^= 1
    assert digest(images) == digest(images.copy()) != digest(changed)


def test_what_makes_no_batch_is_refused(images):
    with pytest.raises(ValueError, match=naming(r"\b50\b", r"\b64\b")):
        make(images, batch_size=64, training=True)
    with pytest.raises(ValueError, match=naming("batch_size", r"\b0\b")):
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


EVERYTHING = {"cutout": 3, "label_smoothing": 0.1}


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("mixing", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
@pytest.mark.parametrize("mix_group", [None, 4])
def test_the_shares_of_a_batch_are_the_batch_to_the_bit(images, count, mixing, mix_group):
    aug = AffineAugmentation(rotation_range=9, width_shift_range=0.1, zoom_range=0.1, pad_crop=2, flip="alternate")
    options = {"aug": aug, "mixing": Mixing(**EVERYTHING, **mixing), "training": True, "mix_group": mix_group}
    whole = make(images, **options)
    shares = [make(images, share=(index, count), **options) for index in range(count)]
    for epoch in range(4):
        for batches in (whole, *shares):
            batches.set_epoch(epoch)
        for expected, *parts in zip(whole, *shares, strict=True):
            assert {len(part[0]) for part in parts} == {16 // count}
            for kind in (0, 1):
                np.testing.assert_array_equal(np.concatenate([part[kind] for part in parts]), expected[kind])


def test_a_share_whose_partners_are_its_own_reads_no_image_of_another(images):
    rows = []

    class Counted(ArrayImages):
        def load(self, which):
            rows.append(which)
            return super().load(which)

    for mix_group, reads in ((8, 8), (None, 9)):
        rows.clear()
        counted = Counted(images, LABELS, ("a", "b", "c"))
        options = {"mixing": Mixing(mixup=1.0), "mix_group": mix_group, "share": (1, 2), "training": True}
        list(Batches(counted, 16, **options))
        assert len(rows) == 3
        assert (max(map(len, rows)) == 8) if mix_group else (max(map(len, rows)) >= reads)


def test_the_shares_of_an_evaluation_are_all_samples_in_order(images):
    shares = [make(images, share=(index, 3)) for index in range(3)]
    for expected, *parts in zip(make(images), *shares, strict=True):
        np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), expected[0])
    one = ArrayImages(images[:1], LABELS[:1], ("a",))
    empty = Batches(one, 4, share=(0, 2), preprocessors=[MeanImagePreprocessor(0)])
    assert empty[0][0].shape == (0, 8, 8, 3)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"share": (0, 3), "training": True}, ["batch_size", r"\b16\b", r"\b3\b"]),
        ({"mix_group": 5, "training": True}, ["batch_size", r"\b16\b", r"\b5\b", "mix_group"]),
        ({"share": (2, 2)}, ["share", r"\(2, 2\)"]),
        ({"aug": AffineAugmentation(pad_crop=8)}, ["`pad_crop` 8", r"\b7\b", "8x8"]),
        ({"mixing": Mixing(cutout=9)}, ["`cutout` 9", r"\b8\b", "8x8"]),
    ],
)
def test_what_does_not_fit_the_images_or_the_batch_is_refused_before_a_batch_is_made(images, options, parts):
    with pytest.raises(ValueError, match=naming(*parts)):
        make(images, **options)
