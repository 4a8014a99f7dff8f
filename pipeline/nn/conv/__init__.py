"""Convolutional networks. `ResNet` loads on first use: the layout of a network needs no Keras."""

from pipeline.utils.lazy import names

__getattr__, __all__ = names(__name__, resnet="ResNet")
