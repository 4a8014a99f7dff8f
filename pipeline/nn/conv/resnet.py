"""Pre-activation bottleneck residual networks: module, stage, stem, network.

He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385, and "Identity Mappings in Deep Residual
Networks", arXiv:1603.05027. Layers are named as in the published tables: `conv1` is the stem, `conv2_1_...` the first
module of the first stage.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import keras
from keras import layers

from pipeline.nn.conv.layout import check_arguments
from pipeline.nn.convolution import Conv2D
from pipeline.nn.normalization import BatchNormalization

# Independent of Keras' global setting.
CHANNELS_LAST = "channels_last"
CONVOLUTION = {"padding": "same", "use_bias": False, "data_format": CHANNELS_LAST}


@dataclass(frozen=True)
class LayerFactory:
    """Create convolutions and normalizations with the network's regularization, epsilon and momentum."""

    conv: Callable[..., layers.Layer]
    bn: Callable[..., layers.Layer]

    def bn_relu(self, x, name: str):
        """Apply batch normalization and ReLU."""
        x = self.bn(name=f"{name}_bn")(x)
        return layers.Activation("relu", name=f"{name}_relu")(x)


def bottleneck_module(x, make: LayerFactory, filters: int, stride: int, project: bool, name: str):
    """Add a residual to the shortcut: 1x1, 3x3 and 1x1 convolution, each after batch normalization and ReLU.

    The first two convolutions have a quarter of the `filters`; the 3x3 one carries the stride. With `project`, the
    shortcut is a strided 1x1 convolution of the activated input, else `x` itself.
    """
    activated = make.bn_relu(x, f"{name}_1")
    residual = make.conv(filters // 4, 1, name=f"{name}_1_conv")(activated)
    residual = make.bn_relu(residual, f"{name}_2")
    residual = make.conv(filters // 4, 3, strides=stride, name=f"{name}_2_conv")(residual)
    residual = make.bn_relu(residual, f"{name}_3")
    residual = make.conv(filters, 1, name=f"{name}_3_conv")(residual)
    shortcut = make.conv(filters, 1, strides=stride, name=f"{name}_shortcut")(activated) if project else x
    return layers.Add(name=f"{name}_add")([residual, shortcut])


def stage(x, make: LayerFactory, modules: int, filters: int, stride: int, name: str):
    """Apply `modules` bottleneck modules; the first one carries the `stride` and projects its shortcut."""
    x = bottleneck_module(x, make, filters, stride, project=True, name=f"{name}_1")
    for module in range(2, modules + 1):
        x = bottleneck_module(x, make, filters, 1, project=False, name=f"{name}_{module}")
    return x


def cifar10_stem(x, make: LayerFactory, filters: int):
    """Apply batch normalization and a 3x3 convolution; the resolution stays."""
    x = make.bn(name="input_bn")(x)
    return make.conv(filters, 3, name="conv1")(x)


def pooled_stem(x, make: LayerFactory, filters: int, kernel: int, stride: int):
    """Apply batch normalization, convolution, batch normalization, ReLU, zero padding 1, 3x3 max pool of stride 2."""
    x = make.bn(name="input_bn")(x)
    x = make.conv(filters, kernel, strides=stride, name="conv1")(x)
    x = make.bn_relu(x, "conv1")
    x = layers.ZeroPadding2D(1, data_format=CHANNELS_LAST, name="zero_padding")(x)
    return layers.MaxPooling2D(3, strides=2, data_format=CHANNELS_LAST, name="max_pool")(x)


STEMS = {
    "cifar10": cifar10_stem,
    "tiny_imagenet": partial(pooled_stem, kernel=5, stride=1),
    "imagenet": partial(pooled_stem, kernel=7, stride=2),
}


class ResNet:
    """Pre-activation bottleneck ResNets."""

    @staticmethod
    def build(
        height: int,
        width: int,
        depth: int,
        classes: int,
        stages: Sequence[int],
        filters: Sequence[int],
        reg: float = 1e-4,
        bn_eps: float = 2e-5,
        bn_mom: float = 0.9,
        dataset: str = "cifar10",
    ) -> keras.Model:
        """Build an uncompiled functional model, channels last; its attribute `network` holds these arguments.

        Input: float images (batch, `height`, `width`, `depth`), mean subtracted. Output: float32 probabilities
        (batch, `classes`), also under a mixed precision policy.

        Args:
            height, width: size of the images in pixels, at least 1.
            depth: channels of the images, at least 1.
            classes: number of classes, at least 1.
            stages: number of bottleneck modules in each stage, such as (9, 9, 9).
            filters: output channels of the stem and of each stage, multiples of 4; one more than `stages`.
            reg: L2 coefficient of every convolution and dense kernel, at least 0.
            bn_eps: epsilon of batch normalization, above 0.
            bn_mom: momentum of batch normalization's moving statistics, 0 to 1.
            dataset: the stem, a key of `STEMS`.

        Raises:
            InputError: (a `ValueError`) an argument is outside these bounds, or above the limits in
                `pipeline.nn.conv.layout`.
        """
        arguments = dict(locals())  # only the parameters so far
        check_arguments(**arguments)
        make = LayerFactory(
            conv=partial(Conv2D, **CONVOLUTION, kernel_regularizer=keras.regularizers.L2(reg)),
            bn=partial(BatchNormalization, epsilon=bn_eps, momentum=bn_mom),
        )
        inputs = keras.Input((height, width, depth), name="images")
        x = STEMS[dataset](inputs, make, filters[0])
        for index, (modules, channels) in enumerate(zip(stages, filters[1:], strict=True)):
            x = stage(x, make, modules, channels, stride=1 if index == 0 else 2, name=f"conv{index + 2}")
        x = make.bn_relu(x, "post")
        x = layers.AveragePooling2D(x.shape[1:3], data_format=CHANNELS_LAST, name="avg_pool")(x)
        x = layers.Flatten(data_format=CHANNELS_LAST, name="flatten")(x)
        x = layers.Dense(classes, kernel_regularizer=keras.regularizers.L2(reg), name="linear")(x)
        outputs = layers.Activation("softmax", dtype="float32", name="softmax")(x)
        model = keras.Model(inputs, outputs, name="resnet")
        # Checkpoints rebuild the network from these. Keras would wrap a mutable dictionary.
        model.network = MappingProxyType(arguments)
        return model
