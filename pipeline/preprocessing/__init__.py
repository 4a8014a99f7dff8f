"""Augment and normalize images. Modules load on first use: only one needs Keras."""

from pipeline.utils.lazy import names

__getattr__, __all__ = names(
    __name__,
    augmentation="AffineAugmentation Mirror",
    imagetoarraypreprocessor="ImageToArrayPreprocessor",
    meanpreprocessor="MeanImagePreprocessor MeanPreprocessor",
    mixing="Mixing",
    randomcrop="RandomCrop",
    simplepreprocessor="SimplePreprocessor",
    standardpreprocessor="Normalization StandardPreprocessor normalization_of",
)
