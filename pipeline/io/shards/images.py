"""Encoded images as a set: decoded, cropped and resized to the network's size when they are read."""

import cv2
import numpy as np

from pipeline.errors import InputError, as_input_error
from pipeline.files.imageheader import JPEG, Frame, Header, first_rows
from pipeline.io.imageset import ImageSet
from pipeline.io.shards.reader import Shards
from pipeline.preprocessing.randomcrop import RandomCrop
from pipeline.preprocessing.view import central_view, resize, view_size
from pipeline.utils import memory

# OpenCV decodes a JPEG at a half, a quarter or an eighth of its size at less cost.
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}


class EncodedImages(ImageSet):
    """The images of `shards`, BGR, as squares of `size` pixels.

    With a `RandomCrop`, an image is a random part. Otherwise it is the central square, after the image was resized so
    that its shorter side has `size` / `eval_ratio` pixels, which with 224 and 0.875 is the usual protocol of ImageNet.
    Pixels are averaged by area to shrink, and interpolated linearly to enlarge. EXIF orientation is ignored.

    Args:
        size: height and width of an image for the network, in pixels.
        eval_ratio: side of the central square as a fraction of the shorter side, above 0 and at most 1.

    Raises:
        InputError: (a `ValueError`) `size` or `eval_ratio` is out of range; on reading: an image is damaged, or
            far longer than wide.
    """

    def __init__(self, shards: Shards, size: int, eval_ratio: float = 0.875) -> None:
        if size < 1:
            raise InputError(f"`image_size` is {size}; expected a number of pixels of at least 1")
        if not 0 < eval_ratio <= 1:
            raise InputError(f"`eval_ratio` is {eval_ratio}; expected a number above 0 and at most 1")
        self.shards = shards
        self.size = size
        self.eval_ratio = eval_ratio
        self.labels = shards.labels
        self.class_names, self.label_names = shards.words, shards.label_names
        self.image_shape = (size, size, 3)
        self._indices = np.arange(len(shards))

    def load(self, rows: np.ndarray) -> np.ndarray:
        return self.read(rows)

    def read(self, rows: np.ndarray, augmentation=None, draws: np.ndarray | None = None) -> np.ndarray:
        images = memory.empty((len(rows), *self.image_shape), np.uint8)
        is_crop = isinstance(augmentation, RandomCrop)
        for position, index in enumerate(self._indices[rows].tolist()):
            if is_crop:
                self._read_crop(index, augmentation, draws[position], images[position])
            else:
                self._read_centre(index, images[position])
        return images if is_crop or augmentation is None else augmentation(images, draws)

    def subset(self, rows: np.ndarray) -> "EncodedImages":
        subset = EncodedImages.__new__(EncodedImages)
        subset.__dict__ |= self.__dict__ | {"labels": self.labels[rows], "_indices": self._indices[rows]}
        return subset

    def digest(self) -> str:
        """Return the digest of all images, also for a subset of them."""
        return self.shards.digest()

    def _read_crop(self, index: int, augmentation: RandomCrop, draws: np.ndarray, image: np.ndarray) -> None:
        """Read a random part of an image into `image`."""
        content, header = self.shards.image(index)
        top, left, crop_height, crop_width = augmentation.box(header.height, header.width, draws)
        factor = 1
        if content.startswith(JPEG):  # of a PNG, OpenCV would drop pixels instead of averaging them
            factor = next((factor for factor in _REDUCED if factor * self.size <= min(crop_height, crop_width)), 1)
        pixels = self._decode(index, content, header, top + crop_height, factor)
        # Rounding moves each edge by at most half a pixel of the result.
        rows, columns = (
            slice(round(start / factor), round((start + length) / factor))
            for start, length in ((top, crop_height), (left, crop_width))
        )
        resize(pixels[rows, columns], image)
        image[:] = augmentation.finish(image, draws)

    def _read_centre(self, index: int, image: np.ndarray) -> None:
        """Read the central square of an image into `image`."""
        content, header = self.shards.image(index)
        with as_input_error(InputError, f"{self.shards.describe(index)} "):
            view_size(header.height, header.width, self.size, self.eval_ratio)  # before it is decoded
        # Decoded in full: reduced images differ slightly from the protocol.
        pixels = self._decode(index, content, header, header.height)
        image[:] = central_view(pixels, self.size, self.eval_ratio)

    def _decode(self, index: int, content: bytes, header: Frame | Header, rows: int, factor: int = 1) -> np.ndarray:
        """Decode at least the first `rows` rows of an image, at 1 / `factor` of its size."""
        flags = _REDUCED.get(factor, cv2.IMREAD_COLOR)
        pixels = None
        if isinstance(header, Frame) and rows < header.height:
            pixels = _decoded(first_rows(content, header, rows), flags)
        if pixels is None:  # or if the file holds fewer rows than it says
            rows, pixels = header.height, _decoded(content, flags)
        if pixels is None or pixels.shape[1] != -(-header.width // factor) or len(pixels) < -(-rows // factor):
            raise InputError(f"{self.shards.describe(index)} can't be decoded; build the data set again")
        return pixels


def _decoded(content: bytes | bytearray, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
