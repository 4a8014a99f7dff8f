"""The geometry of augmentation against SciPy's."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.preprocessing import AffineAugmentation


@pytest.fixture(scope="module")
def images():
    noise = np.random.default_rng(0).uniform(0, 255, (6, 20, 24, 3))
    return ndimage.gaussian_filter(noise, (0, 1.5, 1.5, 0)).astype(np.uint8)


def test_shifts_equal_an_independent_bilinear_shift_with_repeated_edges(images):
    draws = np.random.default_rng(1).random((6, 3))
    varied = AffineAugmentation(width_shift_range=0.2, height_shift_range=0.1)(images, draws)
    for image, (x, y, _), result in zip(images, draws, varied, strict=True):
        # A result's pixel (row, column) is read from (row + up, column + left): SciPy shifts by the negative.
        left, up = (2 * x - 1) * 0.2 * 24, (2 * y - 1) * 0.1 * 20
        expected = ndimage.shift(image.astype(float), (-up, -left, 0), order=1, mode="nearest")
        # OpenCV places a point to 1/32 pixel.
        assert np.abs(result - expected).max() <= 4.0


def test_largest_shift_is_the_range_either_way(images):
    augmentation = AffineAugmentation(width_shift_range=0.25, height_shift_range=0.25)
    lowest, highest = augmentation.matrices(20, 24, np.array([[0.0, 0.0, 0.5], [1.0, 1.0, 0.5]]))
    np.testing.assert_allclose([lowest[0, 2], lowest[1, 2]], [-6.0, -5.0])
    np.testing.assert_allclose([highest[0, 2], highest[1, 2]], [6.0, 5.0])


def test_half_of_the_images_are_mirrored_exactly(images):
    draws = np.column_stack([np.full((6, 2), 0.5), np.linspace(0.0, 0.99, 6)])
    varied = AffineAugmentation(horizontal_flip=True)(images, draws)
    for image, draw, result in zip(images, draws[:, 2], varied, strict=True):
        np.testing.assert_array_equal(result, image[:, ::-1] if draw < 0.5 else image)


def test_nothing_asked_for_changes_nothing(images):
    np.testing.assert_array_equal(AffineAugmentation()(images, np.random.default_rng(2).random((6, 3))), images)
