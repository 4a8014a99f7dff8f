"""Convolutional networks. `ResNet` loads on first use: their layout needs no Keras."""

from pipeline.utils.lazy import names

__getattr__, __all__ = names(__name__, resnet="ResNet")
