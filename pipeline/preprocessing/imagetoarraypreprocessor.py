"""Images as the arrays that Keras takes."""

import keras
import numpy as np

from pipeline.errors import InputError


class ImageToArrayPreprocessor:
    """Makes a float32 array with a channel axis, in the order `data_format`.

    Args:
        data_format: "channels_last" (height, width, channels) or "channels_first" (channels, height, width); Keras'
            setting if None.

    Raises:
        InputError: (a `ValueError`) `data_format` is neither.
    """

    def __init__(self, data_format: str | None = None) -> None:
        self.data_format = data_format or keras.config.image_data_format()
        if self.data_format not in ("channels_last", "channels_first"):
            raise InputError(f"data_format is {data_format!r}; expected channels_last or channels_first")

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """The array of `image` (height, width) or (height, width, channels)."""
        return self.preprocess_batch(image[None])[0]

    def preprocess_batch(self, images: np.ndarray) -> np.ndarray:
        """The same of `images` (n, height, width) or (n, height, width, channels)."""
        if images.ndim == 3:
            images = images[..., None]
        if self.data_format == "channels_first":
            images = images.transpose(0, 3, 1, 2)
        return images.astype(np.float32, copy=False)
