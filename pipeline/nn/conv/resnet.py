"""Pre-activation bottleneck residual networks: layers, module, stage, stem, network.

He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385, and "Identity Mappings in Deep Residual
Networks", arXiv:1603.05027. The layers are named after the rows of the published tables: `conv1` is the stem,
`conv2_1_...` the first module of the first stage.
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

# Whatever Keras' global setting says.
CHANNELS_LAST = "channels_last"
PLAIN_CONVOLUTION = {"padding": "same", "use_bias": False, "data_format": CHANNELS_LAST}


@dataclass(frozen=True)
class Unit:
    """The two layers that carry the network's coefficients, each bound once."""

    convolution: Callable[..., layers.Layer]
    normalization: Callable[..., layers.Layer]

    def activate(self, x, name: str):
        """BN, ReLU."""
        x = self.normalization(name=f"{name}_bn")(x)
        return layers.Activation("relu", name=f"{name}_relu")(x)


def bottleneck_module(x, unit: Unit, filters: int, stride: int, project: bool, name: str):
    """1x1 and 3x3 convolution at a quarter of `filters`, 1x1 at all of them, each after BN and ReLU; plus shortcut.

    The 3x3 convolution carries the stride. `project` makes the shortcut a strided 1x1 convolution of the activated
    input; otherwise it is `x` itself.
    """
    activated = unit.activate(x, f"{name}_1")
    residual = unit.convolution(filters // 4, 1, name=f"{name}_1_conv")(activated)
    residual = unit.activate(residual, f"{name}_2")
    residual = unit.convolution(filters // 4, 3, strides=stride, name=f"{name}_2_conv")(residual)
    residual = unit.activate(residual, f"{name}_3")
    residual = unit.convolution(filters, 1, name=f"{name}_3_conv")(residual)
    shortcut = unit.convolution(filters, 1, strides=stride, name=f"{name}_shortcut")(activated) if project else x
    return layers.Add(name=f"{name}_add")([residual, shortcut])


def stage(x, unit: Unit, modules: int, filters: int, stride: int, name: str):
    """`modules` bottleneck modules at one resolution; the first one changes resolution and width."""
    x = bottleneck_module(x, unit, filters, stride, project=True, name=f"{name}_1")
    for module in range(2, modules + 1):
        x = bottleneck_module(x, unit, filters, 1, project=False, name=f"{name}_{module}")
    return x


def cifar10_stem(x, unit: Unit, filters: int):
    """BN, 3x3 convolution: keeps the resolution."""
    x = unit.normalization(name="input_bn")(x)
    return unit.convolution(filters, 3, name="conv1")(x)


def pooled_stem(x, unit: Unit, filters: int, kernel: int, stride: int):
    """BN, convolution, BN, ReLU, zero padding 1, 3x3 max pool of stride 2."""
    x = unit.normalization(name="input_bn")(x)
    x = unit.convolution(filters, kernel, strides=stride, name="conv1")(x)
    x = unit.activate(x, "conv1")
    x = layers.ZeroPadding2D(1, data_format=CHANNELS_LAST, name="zero_padding")(x)
    return layers.MaxPooling2D(3, strides=2, data_format=CHANNELS_LAST, name="max_pool")(x)


STEMS = {
    "cifar10": cifar10_stem,
    "tiny_imagenet": partial(pooled_stem, kernel=5, stride=1),
    "imagenet": partial(pooled_stem, kernel=7, stride=2),
}


class ResNet:
    """Builds pre-activation bottleneck ResNets."""

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
        """An uncompiled functional model, channels last; its attribute `network` holds these arguments.

        Input: float images (batch, `height`, `width`, `depth`), mean subtracted. Output: float32 probabilities
        (batch, `classes`), also under a mixed precision policy.

        Args:
            height, width: size of an image in pixels, at least 1.
            depth: channels of an image, at least 1.
            classes: number of classes, at least 1.
            stages: number of bottleneck modules in each stage, e.g. (9, 9, 9).
            filters: channels out of the stem, then out of each stage; one more than `stages`, multiples of 4.
            reg: L2 coefficient of every convolution and dense kernel, at least 0.
            bn_eps: what batch normalisation adds to the variance, above 0.
            bn_mom: momentum of batch normalisation's moving statistics, 0 to 1.
            dataset: the stem, a key of `STEMS`.

        Raises:
            InputError: (a `ValueError`) an argument is outside these bounds.
        """
        arguments = dict(locals())  # which are all that there is yet
        check_arguments(**arguments)
        unit = Unit(
            convolution=partial(Conv2D, **PLAIN_CONVOLUTION, kernel_regularizer=keras.regularizers.L2(reg)),
            normalization=partial(BatchNormalization, epsilon=bn_eps, momentum=bn_mom),
        )
        inputs = keras.Input((height, width, depth), name="images")
        x = STEMS[dataset](inputs, unit, filters[0])
        for index, (modules, channels) in enumerate(zip(stages, filters[1:], strict=True)):
            x = stage(x, unit, modules, channels, stride=1 if index == 0 else 2, name=f"conv{index + 2}")
        x = unit.activate(x, "post")
        x = layers.AveragePooling2D(x.shape[1:3], data_format=CHANNELS_LAST, name="avg_pool")(x)
        x = layers.Flatten(data_format=CHANNELS_LAST, name="flatten")(x)
        x = layers.Dense(classes, kernel_regularizer=keras.regularizers.L2(reg), name="linear")(x)
        outputs = layers.Activation("softmax", dtype="float32", name="softmax")(x)
        model = keras.Model(inputs, outputs, name="resnet")
        # For checkpoints, which rebuild the network from them. Keras would wrap a dictionary that may change.
        model.network = MappingProxyType(arguments)
        return model
