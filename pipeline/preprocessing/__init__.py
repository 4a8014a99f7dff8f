"""What happens to images before a network sees them."""

from pipeline.preprocessing.augmentation import AffineAugmentation

__all__ = ["AffineAugmentation"]
