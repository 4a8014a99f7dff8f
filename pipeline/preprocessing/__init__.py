"""What happens to images before a network sees them. Names load on first use: only some need Keras."""

from pipeline.utils.lazy import names

__getattr__, __all__ = names(
    __name__,
    {
        "AffineAugmentation": "augmentation",
        "ImageToArrayPreprocessor": "imagetoarraypreprocessor",
        "MeanImagePreprocessor": "meanpreprocessor",
        "MeanPreprocessor": "meanpreprocessor",
        "Mirror": "augmentation",
        "Mixing": "mixing",
        "SimplePreprocessor": "simplepreprocessor",
    },
)
