"""The geometry of augmentation against Keras' and SciPy's."""

import re

import cv2
import numpy as np
import pytest
from messages import naming
from scipy import ndimage

from pipeline.preprocessing import AffineAugmentation

DRAWS = 9
MIDDLE = np.full(DRAWS, 0.5)  # no shift, rotation or shear, not mirrored


def smooth_images(height, width):
    noise = np.random.default_rng(0).uniform(0, 255, (12, height, width, 3))
    return ndimage.gaussian_filter(noise, (0, 1.5, 1.5, 0)).astype(np.uint8)


def test_all_at_once_equals_keras_own_transform():
    from tensorflow.keras.preprocessing.image import apply_affine_transform

    images, draws = smooth_images(32, 32), np.random.default_rng(1).random((12, DRAWS))
    aug = AffineAugmentation(18, 0.15, 0.2, 0.1, 10, "random")
    for image, (x, y, flip, rotation, shear, zoom_x, zoom_y, *_), result in zip(
        images, draws, aug(images, draws), strict=True
    ):
        # In Keras 3, tx moves along the columns, though its generator draws it from height_shift_range.
        expected = apply_affine_transform(
            image.astype(np.float64),
            theta=(2 * rotation - 1) * 18,
            tx=(2 * x - 1) * 0.2 * 32,
            ty=(2 * y - 1) * 0.1 * 32,
            shear=(2 * shear - 1) * 10,
            zx=0.85 + 0.3 * zoom_x,
            zy=0.85 + 0.3 * zoom_y,
            row_axis=0,
            col_axis=1,
            channel_axis=2,
        )
        expected = expected[:, ::-1] if flip < 0.5 else expected
        # OpenCV rounds coordinates to fractions of a pixel, and colours to integers.
        assert np.abs(result - expected).max() <= 4.0
        assert np.abs(result - expected).mean() <= 0.5


def test_a_rotation_turns_about_the_centre_of_an_image_of_any_shape():
    images = smooth_images(20, 28)
    draws = MIDDLE + np.linspace(-0.5, 0.499, 12)[:, None] * (np.arange(DRAWS) == 3)
    for image, draw, result in zip(images, draws, AffineAugmentation(rotation_range=30)(images, draws), strict=True):
        angle = (2 * draw[3] - 1) * 30
        expected = ndimage.rotate(image.astype(float), angle, reshape=False, order=1, mode="nearest")
        assert np.abs(result - expected).max() <= 4.0


def test_shifts_equal_an_independent_bilinear_shift_with_repeated_edges():
    images, draws = smooth_images(20, 24), np.random.default_rng(1).random((12, DRAWS))
    varied = AffineAugmentation(width_shift_range=0.2, height_shift_range=0.1)(images, draws)
    for image, (x, y, *_), result in zip(images, draws, varied, strict=True):
        # A result's pixel (row, column) is read from (row + up, column + left): SciPy shifts by the negative.
        left, up = (2 * x - 1) * 0.2 * 24, (2 * y - 1) * 0.1 * 20
        expected = ndimage.shift(image.astype(float), (-up, -left, 0), order=1, mode="nearest")
        assert np.abs(result - expected).max() <= 4.0


@pytest.mark.parametrize(("width_range", "height_range", "x", "y"), [(0.25, 0.25, 6.0, 5.0), (3, 2, 3.0, 2.0)])
def test_largest_shift_is_the_range_either_way_as_a_fraction_or_in_pixels(width_range, height_range, x, y):
    aug = AffineAugmentation(width_shift_range=width_range, height_shift_range=height_range)
    extremes = [MIDDLE * ([end] * 2 + [1] * (DRAWS - 2)) for end in (0, 2)]
    lowest, highest = aug.matrices(20, 24, np.array(extremes))
    np.testing.assert_allclose([lowest[0, 2], lowest[1, 2]], [-x, -y])
    np.testing.assert_allclose([highest[0, 2], highest[1, 2]], [x, y])


@pytest.mark.parametrize("zoom_range", [0.15, (0.85, 1.15)])
def test_zoom_factors_lie_in_the_range_and_differ_between_width_and_height(zoom_range):
    draws = MIDDLE + np.outer([-0.5, 0.5], np.arange(DRAWS) == 5)
    lowest, highest = AffineAugmentation(zoom_range=zoom_range).matrices(20, 20, draws)
    np.testing.assert_allclose([lowest[0, 0], highest[0, 0], lowest[1, 1], highest[1, 1]], [0.85, 1.15, 1.0, 1.0])


def test_half_of_the_images_are_mirrored_exactly():
    images = smooth_images(20, 24)
    draws = np.tile(MIDDLE, (12, 1))
    draws[:, 2] = np.linspace(0.0, 0.99, 12)
    varied = AffineAugmentation(flip="random")(images, draws)
    for image, draw, result in zip(images, draws[:, 2], varied, strict=True):
        np.testing.assert_array_equal(result, image[:, ::-1] if draw < 0.5 else image)


def test_nothing_asked_for_changes_nothing():
    images = smooth_images(20, 24)
    np.testing.assert_array_equal(AffineAugmentation()(images, np.random.default_rng(2).random((12, DRAWS))), images)


@pytest.mark.parametrize(
    "shape", [(900, 64, 64, 3), (1500, 32, 32, 3), (90, 20, 24, 1), (3, 500, 400, 3), (60, 1, 8, 3), (9000, 8, 4, 3)]
)
def test_an_image_is_varied_the_same_wherever_in_a_batch_it_lies(shape):
    rng = np.random.default_rng(0)
    images, draws = rng.integers(0, 256, shape, np.uint8), rng.random((shape[0], DRAWS))
    aug = AffineAugmentation(18, 0.15, 0.2, 0.2, 10, "random", pad_crop=min(2, min(shape[1:3]) - 1))
    one_by_one = np.concatenate([aug(image[None], draw[None]) for image, draw in zip(images, draws, strict=True)])
    np.testing.assert_array_equal(aug(images, draws), one_by_one)


def test_a_point_is_read_where_one_warp_of_the_image_alone_reads_it():
    images, draws = smooth_images(64, 64), np.random.default_rng(1).random((12, DRAWS))
    aug = AffineAugmentation(18, 0.15, 0.2, 0.2, 10, "random")
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for image, matrix, result in zip(images, aug.matrices(64, 64, draws), aug(images, draws), strict=True):
        expected = cv2.warpAffine(image, matrix, (64, 64), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        assert np.abs(result.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    "ranges",
    [
        {"rotation_range": -1},
        {"width_shift_range": float("nan")},
        {"zoom_range": 1.0},
        {"zoom_range": (1.2, 0.8)},
        {"shear_range": float("inf")},
        {"flip": "sideways"},
    ],
)
def test_ranges_that_mean_nothing_are_refused(ranges):
    with pytest.raises(
        ValueError, match=naming(*(rf"\b{name}\b.*{re.escape(str(value))}" for name, value in ranges.items()))
    ):
        AffineAugmentation(**ranges)


def test_pad_and_crop_equals_numpy_padding_and_a_slice_at_every_offset():
    images = np.random.default_rng(0).integers(0, 256, (81, 12, 20, 3), np.uint8)
    # Draws in the middle of each ninth give the offsets -4 to 4; each pair of offsets uses the same images.
    draws = np.tile(MIDDLE, (81, 1))
    draws[:, 7:] = (np.stack(np.divmod(np.arange(81), 9), axis=1) + 0.5) / 9
    varied = AffineAugmentation(pad_crop=4)(images, draws)
    for image, (x, y), result in zip(images, np.stack(np.divmod(np.arange(81), 9), axis=1), varied, strict=True):
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
        np.testing.assert_array_equal(result, padded[y : y + 12, x : x + 20])


def test_every_offset_of_a_crop_is_as_likely_as_any_other():
    draws = AffineAugmentation(pad_crop=4).draws(0, 0, np.arange(20_000))
    for column in (7, 8):
        counts = np.bincount(np.floor(draws[:, column] * 9).astype(int), minlength=9)
        # Five standard deviations of a count.
        assert np.abs(counts - 20_000 / 9).max() < 5 * np.sqrt(20_000 / 9 * 8 / 9)


def test_a_flip_that_alternates_shows_each_image_both_ways_in_two_epochs():
    images, samples = smooth_images(20, 24), np.arange(50, 62)
    aug = AffineAugmentation(flip="alternate")
    epochs = [aug(images, aug.draws(1, epoch, samples)) for epoch in range(4)]
    for even, odd in zip(epochs[0], epochs[1], strict=True):
        np.testing.assert_array_equal(odd, even[:, ::-1])
    for one, other in zip(epochs[:2], epochs[2:], strict=True):
        np.testing.assert_array_equal(one, other)
    mirrored = (aug.draws(1, 0, np.arange(10_000))[:, 2] < 0.5).mean()
    assert abs(mirrored - 0.5) < 5 * np.sqrt(0.25 / 10_000)
    anew = AffineAugmentation(flip="random")
    halves = [anew.draws(1, epoch, np.arange(10_000))[:, 2] < 0.5 for epoch in (0, 1)]
    assert abs((halves[0] == halves[1]).mean() - 0.5) < 5 * np.sqrt(0.25 / 10_000)


def test_a_crop_needs_an_image_that_is_larger_than_its_padding():
    with pytest.raises(ValueError, match=naming("`pad_crop` 20", r"\b19\b", "20x24")):
        AffineAugmentation(pad_crop=20).check(20, 24)
    AffineAugmentation(pad_crop=19).check(20, 24)
