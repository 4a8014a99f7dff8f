"""ImageNet, as its build has written it: shards of encoded images, and the mean and deviation of their colours."""

from functools import cached_property
from pathlib import Path

from pipeline.data.source import DataSource
from pipeline.data.textfiles import CHANNELS, read_mean
from pipeline.errors import InputError, as_input_error
from pipeline.io.shards import EncodedImages, Shards
from pipeline.preprocessing import StandardPreprocessor


class ImageNet(DataSource):
    """BGR images of any size, standardized by the mean and deviation of all training images, held-out ones included.

    Training takes random crops if it is given a `RandomCrop`; everything else sees the central square (see
    `EncodedImages`). The labels of the test images were never published: `evaluation_split` is "val".

    Args:
        data: the paths of the build's files by the names "shards", a folder, and "mean".
        limit, holdout: see `DataSource`.
        image_size: height and width of the network's images, in pixels, at least 1.
        eval_ratio: side of the central square as a fraction of the shorter side, above 0 and at most 1.

    Raises:
        InputError: (a `ValueError`) `limit`, `holdout` or `image_size` is below 1, or `eval_ratio` is out of range.
    """

    name = "imagenet"
    colours = "BGR"
    normalizes_subset = False
    evaluation_split = "val"

    def __init__(
        self,
        data: dict[str, Path],
        limit: int | None = None,
        holdout: int | None = None,
        image_size: int = 224,
        eval_ratio: float = 0.875,
    ) -> None:
        super().__init__(data, limit, holdout)
        self.image_size = image_size
        self.eval_ratio = eval_ratio

    def load(self, split: str) -> EncodedImages:
        if split == "test":
            raise InputError("the labels of ImageNet's test images were never published; use the `split` val")
        return EncodedImages(Shards(self.data["shards"], split), self.image_size, self.eval_ratio)

    @cached_property
    def normalization(self) -> StandardPreprocessor:
        mean, deviation = read_mean(self.data["mean"])
        if deviation is None:
            raise InputError(f"mean {self.data['mean']} lacks the standard deviation; build the data set again")
        bgr = CHANNELS[::-1]
        with as_input_error(ValueError, f"mean {self.data['mean']}: "):
            return StandardPreprocessor([mean[name] for name in bgr], [deviation[name] for name in bgr])
