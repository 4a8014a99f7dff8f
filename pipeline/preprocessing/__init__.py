"""What happens to images before a network sees them. Names load on first use: only some need Keras."""

from pipeline.utils.lazy import names

__getattr__, __all__ = names(
    __name__,
    augmentation="AffineAugmentation Mirror",
    imagetoarraypreprocessor="ImageToArrayPreprocessor",
    meanpreprocessor="MeanImagePreprocessor MeanPreprocessor",
    mixing="Mixing",
    simplepreprocessor="SimplePreprocessor",
)
