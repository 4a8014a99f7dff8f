"""The networks against the published tables."""

import keras
import numpy as np
import pytest
from messages import naming

from pipeline.nn.conv import ResNet
from pipeline.nn.conv.layout import layers

CIFAR10 = {"height": 32, "width": 32, "depth": 3, "classes": 10, "stages": (9, 9, 9), "filters": (64, 64, 128, 256)}
TINY = {
    "height": 64,
    "width": 64,
    "depth": 3,
    "classes": 200,
    "stages": (3, 4, 6),
    "filters": (64, 128, 256, 512),
    "dataset": "tiny_imagenet",
}
SMALL = {"height": 16, "width": 16, "depth": 3, "classes": 5, "stages": (2, 1), "filters": (8, 8, 16)}


@pytest.mark.parametrize(("network", "total", "trainable"), [(CIFAR10, 886_102, 873_872), (TINY, 2_265_748, 2_252_046)])
def test_published_networks_have_the_published_parameters(network, total, trainable):
    model = ResNet.build(**network)
    assert model.count_params() == total
    assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == trainable


@pytest.mark.parametrize("dataset", ["cifar10", "tiny_imagenet", "imagenet"])
def test_the_layout_that_files_are_checked_against_is_that_of_the_network(dataset):
    network = {"height": 32, "width": 32, "depth": 3, "classes": 7, "stages": (2, 3, 1), "filters": (4, 8, 12, 16)}
    model = ResNet.build(**network, dataset=dataset)
    built = [
        (layer.name, type(layer).__name__.removeprefix("Fused"), {w.name: tuple(w.shape) for w in layer.weights})
        for layer in model.layers
    ]
    assert built == [
        (layer.name, layer.class_name, dict(layer.weights)) for layer in layers(**network, dataset=dataset)
    ]
    trainable = {name for layer in layers(**network, dataset=dataset) for name in layer.trainable}
    assert trainable == {weight.name for weight in model.trainable_weights}


def test_imagenet_stem_shrinks_four_times():
    model = ResNet.build(64, 96, 3, 10, (1, 1), (8, 8, 16), dataset="imagenet")
    assert model.get_layer("conv1").output.shape == (None, 32, 48, 8)
    assert model.get_layer("max_pool").output.shape == (None, 16, 24, 8)
    assert model.get_layer("conv3_1_add").output.shape == (None, 8, 12, 16)


def test_every_kernel_and_nothing_else_is_regularised():
    model = ResNet.build(**SMALL, reg=0.5)
    kernels = [weight for weight in model.trainable_weights if weight.name == "kernel"]
    assert len(kernels) == 1 + 3 * 3 + 2 + 1
    expected = 0.5 * sum(float(np.sum(np.square(keras.ops.convert_to_numpy(kernel)))) for kernel in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


def test_normalisation_carries_its_coefficients_everywhere():
    model = ResNet.build(**SMALL, bn_eps=1e-3, bn_mom=0.7)
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(layers) == 1 + 3 * 3 + 1
    assert {(layer.epsilon, layer.momentum) for layer in layers} == {(1e-3, 0.7)}


def test_stride_lies_on_the_3x3_convolution_and_the_shortcut_of_later_stages():
    model = ResNet.build(**SMALL)
    strided = {layer.name for layer in model.layers if getattr(layer, "strides", (1, 1)) == (2, 2)}
    assert strided == {"conv3_1_2_conv", "conv3_1_shortcut"}


def test_shortcut_of_a_first_module_is_the_activated_input_and_of_others_the_input():
    model = ResNet.build(**SMALL)
    assert model.get_layer("conv2_1_shortcut").input is model.get_layer("conv2_1_1_relu").output
    assert model.get_layer("conv2_2_add").input[1] is model.get_layer("conv2_1_add").output


def test_outputs_are_probabilities_in_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = ResNet.build(**SMALL)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("conv2_1_2_conv").compute_dtype == "bfloat16"
    outputs = model.predict(np.zeros((2, 16, 16, 3)), verbose=0)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs.sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ({"dataset": "mnist"}, ["dataset", "'mnist'", "cifar10, tiny_imagenet, imagenet"]),
        ({"filters": (8, 16)}, [r"filters\b.*\b2\b.*stages\b.*\b2\b"]),
        ({"filters": (8, 10, 16)}, ["filters", r"\(8, 10, 16\)", r"\b4\b"]),
        ({"filters": (8, 8, 0)}, ["filters", r"\(8, 8, 0\)", r"\b1\b"]),
        ({"stages": (2, 0)}, ["stages", r"\(2, 0\)", r"\b1\b"]),
        ({"stages": ()}, ["stages", r"\(\)"]),
        ({"height": 0}, ["height", r"\b0\b"]),
        ({"width": -3}, ["width", r"\B-3\b"]),
        ({"depth": 1.5}, ["depth", r"\b1\.5\b"]),
        ({"classes": True}, ["classes", r"\bTrue\b"]),
        ({"reg": -1e-4}, ["reg", r"\B-0\.0001\b"]),
        ({"bn_eps": 0}, ["bn_eps", r"\b0\b"]),
        ({"bn_mom": 1.1}, ["bn_mom", r"\b1\.1\b"]),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(wrong, parts):
    with pytest.raises(ValueError, match=naming(*parts)):
        ResNet.build(**SMALL | wrong)
