"""Handwritten digits in CIFAR-10's shape, for a first run without a download."""

import cv2
import numpy as np

from pipeline.io.imageset import ArrayImages


def load_digits() -> dict[str, ArrayImages]:
    """Return scikit-learn's 1,797 digits (Alpaydin and Kaynak, 1998), 8x8 pixels, enlarged to uint8 32x32x3.

    The splits are "train" and "test"; the test set is a fixed fifth of each class.
    """
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    digits = datasets.load_digits()
    pixels = np.round(digits.images * (255.0 / 16.0)).astype(np.uint8)
    enlarged = [cv2.resize(image, (32, 32), interpolation=cv2.INTER_LINEAR) for image in pixels]
    images = np.repeat(np.stack(enlarged)[..., None], 3, axis=-1)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, digits.target, test_size=0.2, stratify=digits.target, random_state=42
    )
    return {
        "train": ArrayImages(train_images, train_labels, "0123456789"),
        "test": ArrayImages(test_images, test_labels, "0123456789"),
    }
