"""The moving average of the weights: arithmetic, and swapping it into the model."""

import keras
import numpy as np
import pytest

from pipeline.nn.average import MovingAverage


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((3,)), keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.5), "mse")
    return model


def step(model, rng):
    model.train_on_batch(rng.random((8, 3)), rng.random((8, 2)))
    return {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}


def test_it_is_the_recursion_over_all_weights_batch_statistics_included(model):
    rng = np.random.default_rng(0)
    average = MovingAverage(model, 0.6)
    expected = average.arrays()
    assert any("moving_variance" in path for path in expected)
    for number in range(12):
        weights = step(model, rng)
        average.update()
        decay = min(0.6, (1 + number) / (10 + number))
        expected = {path: decay * expected[path] + (1 - decay) * weights[path] for path in expected}
    for path, values in average.arrays().items():
        np.testing.assert_allclose(values, expected[path], rtol=1e-5, atol=1e-7)
        assert not np.array_equal(values, weights[path])


def test_the_averages_stand_in_for_a_while_and_the_raw_weights_come_back_to_the_bit(model):
    average = MovingAverage(model, 0.9)
    raw = step(model, np.random.default_rng(0))
    average.update()
    with average.swapped_in():
        for weight in model.weights:
            np.testing.assert_array_equal(weight, average.arrays()[weight.path])
            np.testing.assert_array_equal(average.raw_arrays()[weight.path], raw[weight.path])
    for weight in model.weights:
        np.testing.assert_array_equal(weight, raw[weight.path])
    average.swap_in()
    np.testing.assert_array_equal(model.weights[0], average.arrays()[model.weights[0].path])


def test_it_goes_on_from_what_it_was_to_the_bit(model):
    average = MovingAverage(model, 0.9)
    rng = np.random.default_rng(0)
    for _ in range(3):
        step(model, rng)
        average.update()
    other = MovingAverage(model, 0.9, steps=3)
    other.restore(average.arrays())
    for _ in range(2):
        step(model, rng)
        average.update()
        other.update()
    for path, values in average.arrays().items():
        np.testing.assert_array_equal(values, other.arrays()[path])
