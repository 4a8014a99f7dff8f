"""Resizing."""

import cv2
import numpy as np


class SimplePreprocessor:
    """Resizes to `width` x `height` pixels, the aspect ratio ignored, by OpenCV's interpolation `inter`."""

    def __init__(self, width: int, height: int, inter: int = cv2.INTER_AREA) -> None:
        self.width = width
        self.height = height
        self.inter = inter

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """`image` (h, w) or (h, w, channels), uint8 or float32, at the new size; itself where it has that size."""
        if image.shape[:2] == (self.height, self.width):
            return image
        resized = cv2.resize(image, (self.width, self.height), interpolation=self.inter)
        # OpenCV drops an axis of one channel.
        return resized.reshape(self.height, self.width, *image.shape[2:])

    def preprocess_batch(self, images: np.ndarray) -> np.ndarray:
        """The same of `images` (n, h, w, channels)."""
        if images.shape[1:3] == (self.height, self.width):
            return images
        return np.stack([self.preprocess(image) for image in images])
