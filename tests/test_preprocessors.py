"""Preprocessors, on single images and on batches."""

import cv2
import keras
import numpy as np
import pytest
from messages import naming

from pipeline.preprocessing import (
    ImageToArrayPreprocessor,
    MeanImagePreprocessor,
    MeanPreprocessor,
    SimplePreprocessor,
    StandardPreprocessor,
    normalization_of,
)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 12, 16, 3), np.uint8)


@pytest.mark.parametrize(
    "preprocessor",
    [
        SimplePreprocessor(8, 6),
        SimplePreprocessor(16, 12),
        SimplePreprocessor(20, 30, cv2.INTER_LINEAR),
        MeanPreprocessor(123.4, 117.2, 104.9),
        MeanImagePreprocessor(np.random.default_rng(1).uniform(0, 255, (12, 16, 3))),
        StandardPreprocessor([104.9, 117.2, 123.4], [57.1, 56.2, 58.3]),
        ImageToArrayPreprocessor("channels_first"),
        ImageToArrayPreprocessor(),
    ],
)
def test_many_images_at_once_give_the_numbers_of_one_at_a_time(preprocessor, images):
    batch = preprocessor.preprocess_batch(images)
    single = [preprocessor.preprocess(image) for image in images]
    np.testing.assert_array_equal(batch, single)
    assert batch.dtype == single[0].dtype


def test_resizing_ignores_the_aspect_ratio_and_keeps_one_channel(images):
    resized = SimplePreprocessor(8, 6).preprocess(images[0])
    # At half the size, area interpolation is the mean of 2x2 pixels.
    expected = images[0].reshape(6, 2, 8, 2, 3).mean(axis=(1, 3))
    assert np.abs(resized - expected).max() <= 0.5
    assert SimplePreprocessor(8, 6).preprocess(images[0][..., :1]).shape == (6, 8, 1)
    assert SimplePreprocessor(8, 6).preprocess(images[0][..., 0]).shape == (6, 8)


def test_the_means_are_subtracted_from_blue_green_and_red(images):
    result = MeanPreprocessor(r_mean=3.0, g_mean=2.0, b_mean=1.0).preprocess(images[0])
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, images[0] - np.float32([1, 2, 3]))


def test_the_difference_from_the_mean_is_divided_by_the_deviation(images):
    mean, deviation = np.array([1.0, 2.0, 3.0]), np.array([50.0, 60.0, 70.0])
    result = StandardPreprocessor(mean, deviation).preprocess_batch(images)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, (images - mean) / deviation, rtol=1e-6)
    for wrong in ([1, 0, 1], [1, -1, 1], [1, np.nan, 1]):
        with pytest.raises(ValueError, match=naming("deviation", "above 0")):
            StandardPreprocessor(mean, wrong)


@pytest.mark.parametrize(
    "preprocessor",
    [
        MeanPreprocessor(123.4, 117.2, 104.9),
        MeanImagePreprocessor(np.full((12, 16, 3), 9.5)),
        StandardPreprocessor([104.9, 117.2, 123.4], [57.1, 56.2, 58.3]),
    ],
)
def test_the_parameters_of_a_normalization_are_all_of_it(preprocessor, images):
    again = normalization_of(preprocessor.parameters)
    np.testing.assert_array_equal(again.preprocess_batch(images), preprocessor.preprocess_batch(images))


def test_arrays_are_those_of_keras(images):
    for data_format in ("channels_last", "channels_first"):
        expected = keras.utils.img_to_array(images[0], data_format="channels_last")
        if data_format == "channels_first":
            expected = expected.transpose(2, 0, 1)
        np.testing.assert_array_equal(ImageToArrayPreprocessor(data_format).preprocess(images[0]), expected)
    assert ImageToArrayPreprocessor("channels_last").preprocess(images[0][..., 0]).shape == (12, 16, 1)
    with pytest.raises(ValueError, match=naming("data_format", "'last'")):
        ImageToArrayPreprocessor("last")
