"""The fused layer against the stock one."""

from unittest import mock

import keras
import numpy as np
import pytest

from pipeline.nn.conv import ResNet, resnet
from pipeline.nn.normalization import BatchNormalization, stock_config

NETWORK = {"height": 16, "width": 16, "depth": 3, "classes": 5, "stages": (2, 2), "filters": (8, 8, 16)}


def build(stock: bool) -> keras.Model:
    keras.utils.set_random_seed(1)
    layer = keras.layers.BatchNormalization if stock else BatchNormalization
    with mock.patch.object(resnet, "BatchNormalization", layer):
        model = ResNet.build(**NETWORK)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "categorical_crossentropy")
    return model


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return rng.normal(0, 60, (32, 16, 16, 3)).astype(np.float32), np.eye(5, dtype=np.float32)[rng.integers(0, 5, 32)]


def test_one_step_equals_stock_layers_in_loss_and_every_weight(batch):
    fused, stock = build(stock=False), build(stock=True)
    assert fused.train_on_batch(*batch) == pytest.approx(stock.train_on_batch(*batch), abs=1e-5)
    for ours, theirs in zip(fused.weights, stock.weights, strict=True):
        # The input's moving variances are in the hundreds, hence the relative tolerance.
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-5, err_msg=ours.path)


@pytest.mark.sweep
def test_twenty_steps_stay_at_the_stock_layers_loss(batch):
    fused, stock = build(stock=False), build(stock=True)
    for model in (fused, stock):
        model.optimizer.learning_rate = 0.01
    for _ in range(20):
        losses = fused.train_on_batch(*batch), stock.train_on_batch(*batch)
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


def test_moving_statistics_are_the_biased_ones_that_keras_defines():
    layer = BatchNormalization(momentum=0.9)
    inputs = np.random.default_rng(0).normal(3, 2, (2, 3, 2, 4)).astype(np.float32)
    layer(inputs, training=True)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * inputs.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * inputs.var((0, 1, 2)), rtol=1e-5)


def test_a_single_pixel_has_no_variance():
    layer = BatchNormalization(momentum=0.5)
    outputs = layer(np.full((1, 1, 1, 4), 7.0, np.float32), training=True)
    np.testing.assert_allclose(outputs, 0.0, atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, 0.5)


def test_a_frozen_layer_infers_and_learns_nothing():
    layer = BatchNormalization(epsilon=1e-3)
    inputs = np.random.default_rng(0).normal(3, 2, (2, 4, 4, 4)).astype(np.float32)
    layer.build(inputs.shape)
    layer.trainable = False
    np.testing.assert_allclose(layer(inputs, training=True), inputs / np.sqrt(1.001), rtol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(4))


def test_other_shapes_take_the_stock_path():
    inputs = np.random.default_rng(0).normal(3, 2, (16, 4)).astype(np.float32)
    np.testing.assert_allclose(
        BatchNormalization()(inputs, training=True), keras.layers.BatchNormalization()(inputs, training=True), rtol=1e-5
    )


def test_mixed_precision_keeps_statistics_in_float32():
    layer = BatchNormalization(dtype="mixed_bfloat16")
    outputs = layer(np.random.default_rng(0).normal(3, 2, (8, 4, 4, 4)), training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert layer.moving_variance.dtype == "float32"
    assert abs(float(keras.ops.mean(keras.ops.cast(outputs, "float32")))) < 0.01


def test_saved_configuration_names_stock_layers_only():
    assert "pipeline" not in stock_config(build(stock=False))
    assert stock_config(build(stock=False)) == stock_config(build(stock=True))
