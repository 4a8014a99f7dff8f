"""Bring each channel to mean 0 and standard deviation 1."""

import numpy as np

from pipeline.errors import InputError
from pipeline.preprocessing.meanpreprocessor import MeanImagePreprocessor
from pipeline.utils import memory


class StandardPreprocessor:
    """Subtract the mean of each channel and divide by its standard deviation, in float32.

    Args:
        mean, deviation: (channels,), in the order of the images' channels.

    Attributes:
        parameters: mean and deviation, float32 (2, channels).

    Raises:
        InputError: (a `ValueError`) a deviation is not above 0.
    """

    def __init__(self, mean: np.ndarray, deviation: np.ndarray) -> None:
        self.parameters = np.stack([mean, deviation]).astype(np.float32)
        if not (np.isfinite(self.parameters).all() and (self.parameters[1] > 0).all()):
            raise InputError(f"mean and deviation are {self.parameters.tolist()}; expected deviations above 0")

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """Return `image` (height, width, channels), standardized, as float32."""
        return self.preprocess_batch(image[None])[0]

    def preprocess_batch(self, images: np.ndarray) -> np.ndarray:
        """Return `images` (n, height, width, channels), standardized, as float32."""
        # One long row per image, as in `MeanImagePreprocessor`; each is finished while it is in the processor's cache.
        mean, deviation = (np.broadcast_to(value, images.shape[1:]).reshape(-1) for value in self.parameters)
        rows = images.reshape(len(images), len(mean))
        standardized = memory.empty(rows.shape, np.float32)
        for row, out in zip(rows, standardized, strict=True):
            np.subtract(row, mean, out=out, dtype=np.float32)
            np.divide(out, deviation, out=out)
        return standardized.reshape(images.shape)


Normalization = MeanImagePreprocessor | StandardPreprocessor
"""The last preprocessor before the network."""


def normalization_of(parameters: np.ndarray) -> Normalization:
    """Return the preprocessor with the given `parameters`, as a checkpoint holds them.

    Args:
        parameters: the mean (height, width, channels) or (channels,), or mean and deviation (2, channels).
    """
    return StandardPreprocessor(*parameters) if parameters.ndim == 2 else MeanImagePreprocessor(parameters)
