"""Random variations of training images."""

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np


@dataclass(frozen=True)
class AffineAugmentation:
    """Random shifts and mirroring, composed into one affine warp an image.

    The arguments mean what Keras' `ImageDataGenerator` gave them: `width_shift_range` and `height_shift_range` are
    the largest shift either way as a fraction of the image's width and height, drawn uniformly and not rounded to
    whole pixels (bilinear interpolation); `horizontal_flip` mirrors half of the images. Edges are repeated.

    An augmentation holds no random state: whoever calls it brings `DRAWS` numbers in [0, 1) an image.
    """

    width_shift_range: float = 0.0
    height_shift_range: float = 0.0
    horizontal_flip: bool = False

    DRAWS: ClassVar[int] = 3

    def __call__(self, images: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Varied copies of uint8 `images` (n, height, width, channels), given `uniforms` (n, `DRAWS`) in [0, 1)."""
        height, width = images.shape[1:3]
        varied = np.empty_like(images)
        for image, matrix, target in zip(images, self.matrices(height, width, uniforms), varied, strict=True):
            cv2.warpAffine(
                image,
                matrix,
                (width, height),
                dst=target,
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
        return varied

    def matrices(self, height: int, width: int, uniforms: np.ndarray) -> np.ndarray:
        """Float64 matrices (n, 2, 3) that map a pixel (x, y, 1) of the result to the point it is read from."""
        shift_x = (2.0 * uniforms[:, 0] - 1.0) * self.width_shift_range * width
        shift_y = (2.0 * uniforms[:, 1] - 1.0) * self.height_shift_range * height
        mirrored = (uniforms[:, 2] < 0.5) & self.horizontal_flip
        matrices = np.zeros((len(uniforms), 2, 3))
        matrices[:, 0, 0] = np.where(mirrored, -1.0, 1.0)
        matrices[:, 0, 2] = np.where(mirrored, width - 1.0, 0.0) + shift_x
        matrices[:, 1, 1] = 1.0
        matrices[:, 1, 2] = shift_y
        return matrices
