"""Convert images to Keras arrays."""

import keras
import numpy as np

from pipeline.errors import InputError


class ImageToArrayPreprocessor:
    """Convert an image to a float32 array with a channel axis.

    Args:
        data_format: "channels_last" (height, width, channels) or "channels_first" (channels, height, width); None for
            Keras' setting.

    Raises:
        InputError: (a `ValueError`) `data_format` is invalid.
    """

    def __init__(self, data_format: str | None = None) -> None:
        self.data_format = data_format or keras.config.image_data_format()
        if self.data_format not in ("channels_last", "channels_first"):
            raise InputError(f"data_format is {data_format!r}; expected channels_last or channels_first")

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """Convert `image` (height, width) or (height, width, channels)."""
        return self.preprocess_batch(image[None])[0]

    def preprocess_batch(self, images: np.ndarray) -> np.ndarray:
        """Convert `images` (n, height, width) or (n, height, width, channels)."""
        if images.ndim == 3:
            images = images[..., None]
        if self.data_format == "channels_first":
            images = images.transpose(0, 3, 1, 2)
        return images.astype(np.float32, copy=False)
