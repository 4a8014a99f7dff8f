"""Data sets, each as one thing. Names load on first use: building one needs no Keras."""

from pipeline.utils.lazy import names

__getattr__, __all__ = names(
    __name__, cifar10="CIFAR10", source="DataSource", imagefolder="ImageFolder", tinyimagenet="TinyImageNet"
)
