"""Data sets. Modules load on first use: building a data set needs no Keras."""

from pipeline.utils.lazy import names

__getattr__, __all__ = names(
    __name__,
    arraysource="ArraySource",
    cifar10="CIFAR10",
    imagefolder="ImageFolder",
    imagenet="ImageNet",
    source="DataSource",
    tinyimagenet="TinyImageNet",
)
