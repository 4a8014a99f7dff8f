"""Tiny ImageNet as the build wrote it: three HDF5 files, and the training set's mean colour."""

from functools import cached_property
from pathlib import Path

from pipeline.data.source import DataSource
from pipeline.data.tinyimagenetfiles import read_mean
from pipeline.io.hdf5dataset import HDF5Images
from pipeline.preprocessing import MeanPreprocessor


class TinyImageNet(DataSource):
    """Images in BGR, less the mean colour: that of all training images, also where a part of them is held out.

    Args:
        train, val, test, mean: the files `train.hdf5`, `val.hdf5`, `test.hdf5` and `mean.json`.
        limit, holdout: see `DataSource`.

    Raises:
        InputError: when images are first needed: the data set isn't built, or a file is damaged.
    """

    name = "tiny_imagenet"

    def __init__(
        self,
        train: Path,
        val: Path,
        test: Path,
        mean: Path,
        *,
        limit: int | None = None,
        holdout: int | None = None,
    ) -> None:
        super().__init__(limit, holdout)
        self._files = {"train": train, "val": val, "test": test}
        self._mean = mean

    def load(self, split: str) -> HDF5Images:
        return HDF5Images(self._files[split])

    @cached_property
    def normalization(self) -> MeanPreprocessor:
        mean = read_mean(self._mean)
        return MeanPreprocessor(mean["R"], mean["G"], mean["B"])
