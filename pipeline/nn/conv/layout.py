"""The layers of a network and the bounds of its arguments, without building it. Needs no Keras."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral

from pipeline.errors import InputError

STEM_KERNELS = {"cifar10": 3, "tiny_imagenet": 5, "imagenet": 7}
"""Kernel size of the first convolution in each stem."""

# Limits for untrusted files, far beyond any network that this project trains.
LARGEST = {"height": 4096, "width": 4096, "depth": 64, "classes": 1_000_000, "stages": 1000, "filters": 1 << 16}
MAX_STAGES = 16
# Keras traverses a network recursively, about ten calls per module; Python's limit is a thousand.
MAX_MODULES = 90
MAX_WEIGHTS = 1 << 28


@dataclass(frozen=True)
class Layer:
    """A layer: its name, its Keras class, and the shapes of its float32 weights by name."""

    name: str
    class_name: str
    weights: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def trainable(self) -> dict[str, tuple[int, ...]]:
        """The trainable weights."""
        return {name: shape for name, shape in self.weights.items() if not name.startswith("moving_")}


def check_arguments(
    *,
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
) -> None:
    """Raise `InputError` if an argument of `ResNet.build` is out of bounds."""
    if not isinstance(dataset, str) or dataset not in STEM_KERNELS:
        raise InputError(f"dataset is {dataset!a:.100}; expected one of {', '.join(STEM_KERNELS)}")
    for name, value in {"height": height, "width": width, "depth": depth, "classes": classes}.items():
        if not _is_count(value, LARGEST[name]):
            raise InputError(f"{name} is {value!a:.100}; expected a whole number from 1 to {LARGEST[name]}")
    for name, values in {"stages": stages, "filters": filters}.items():
        largest = LARGEST[name]
        if (
            not isinstance(values, (tuple, list))
            or not values
            or not all(_is_count(value, largest) for value in values)
        ):
            raise InputError(f"`{name}` is {values!a:.100}; expected whole numbers from 1 to {largest}")
    if len(stages) > MAX_STAGES or sum(stages) > MAX_MODULES:
        raise InputError(
            f"`stages` is {tuple(stages)}; expected at most {MAX_STAGES} stages and {MAX_MODULES} modules in total"
        )
    if len(filters) != len(stages) + 1:
        raise InputError(
            f"`filters` has {len(filters)} entries and `stages` {len(stages)}; expected {len(stages) + 1} filters, "
            "one for the stem and one per stage"
        )
    if any(value % 4 for value in filters):
        raise InputError(f"`filters` is {tuple(filters)}; expected multiples of 4: a bottleneck has a quarter of them")
    weights = sum(
        math.prod(shape)
        for layer in layers(depth=depth, classes=classes, stages=stages, filters=filters, dataset=dataset)
        for shape in layer.weights.values()
    )
    if weights > MAX_WEIGHTS:
        raise InputError(
            f"`filters` is {tuple(filters)}: {weights:,} weights in total; expected at most {MAX_WEIGHTS:,}"
        )
    if not (_is_number(reg) and 0 <= reg < math.inf):
        raise InputError(f"`reg` is {reg!a:.100}; expected a number of at least 0")
    if not (_is_number(bn_eps) and 0 < bn_eps < math.inf):
        raise InputError(f"bn_eps is {bn_eps!a:.100}; expected a number above 0")
    if not (_is_number(bn_mom) and 0 <= bn_mom <= 1):
        raise InputError(f"bn_mom is {bn_mom!a:.100}; expected a number from 0 to 1")


def layers(
    *, depth: int, classes: int, stages: Sequence[int], filters: Sequence[int], dataset: str = "cifar10", **_: object
) -> Iterator[Layer]:
    """Yield the layers that `ResNet.build` creates from these arguments, in the order of `model.layers`."""
    yield Layer("images", "InputLayer")
    yield _normalization("input_bn", depth)
    yield _convolution("conv1", STEM_KERNELS[dataset], depth, filters[0])
    if dataset != "cifar10":
        yield from _activation("conv1", filters[0])
        yield Layer("zero_padding", "ZeroPadding2D")
        yield Layer("max_pool", "MaxPooling2D")
    channels = filters[0]
    for stage, (modules, out) in enumerate(zip(stages, filters[1:], strict=True), start=2):
        for module in range(1, modules + 1):
            name, narrow = f"conv{stage}_{module}", out // 4
            yield from _activation(f"{name}_1", channels)
            yield _convolution(f"{name}_1_conv", 1, channels, narrow)
            yield from _activation(f"{name}_2", narrow)
            yield _convolution(f"{name}_2_conv", 3, narrow, narrow)
            yield from _activation(f"{name}_3", narrow)
            yield _convolution(f"{name}_3_conv", 1, narrow, out)
            if module == 1:
                yield _convolution(f"{name}_shortcut", 1, channels, out)
            yield Layer(f"{name}_add", "Add")
            channels = out
    yield from _activation("post", channels)
    yield Layer("avg_pool", "AveragePooling2D")
    yield Layer("flatten", "Flatten")
    yield Layer("linear", "Dense", {"kernel": (channels, classes), "bias": (classes,)})
    yield Layer("softmax", "Activation")


def _activation(name: str, channels: int) -> Iterator[Layer]:
    yield _normalization(f"{name}_bn", channels)
    yield Layer(f"{name}_relu", "Activation")


def _normalization(name: str, channels: int) -> Layer:
    weights = ("gamma", "beta", "moving_mean", "moving_variance")
    return Layer(name, "BatchNormalization", dict.fromkeys(weights, (channels,)))


def _convolution(name: str, kernel: int, channels: int, filters: int) -> Layer:
    return Layer(name, "Conv2D", {"kernel": (kernel, kernel, channels, filters)})


def _is_count(value: object, largest: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and 1 <= value <= largest


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
