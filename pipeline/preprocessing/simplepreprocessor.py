"""Resize images."""

import cv2
import numpy as np


class SimplePreprocessor:
    """Resize to `width` x `height` pixels, ignoring the aspect ratio, with OpenCV's interpolation `inter`."""

    def __init__(self, width: int, height: int, inter: int = cv2.INTER_AREA) -> None:
        self.width = width
        self.height = height
        self.inter = inter

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """Return `image` (h, w) or (h, w, channels), uint8 or float32, resized; unchanged if it has that size."""
        if image.shape[:2] == (self.height, self.width):
            return image
        resized = cv2.resize(image, (self.width, self.height), interpolation=self.inter)
        # OpenCV drops the axis of a single channel.
        return resized.reshape(self.height, self.width, *image.shape[2:])

    def preprocess_batch(self, images: np.ndarray) -> np.ndarray:
        """Return `images` (n, h, w, channels) resized."""
        if images.shape[1:3] == (self.height, self.width):
            return images
        return np.stack([self.preprocess(image) for image in images])
