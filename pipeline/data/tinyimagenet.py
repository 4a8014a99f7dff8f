"""Tiny ImageNet as the build wrote it: three HDF5 files, and the training set's mean colour."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from pipeline.data.source import DataSource
from pipeline.data.tinyimagenetfiles import read_mean
from pipeline.io.hdf5dataset import HDF5Images
from pipeline.preprocessing import MeanPreprocessor


class TinyImageNet(DataSource):
    """Images in BGR, less the mean colour: that of all training images, also where a part of them is held out.

    Args:
        files: those that the build wrote, by the names "train", "val", "test" and "mean".
        limit, holdout: see `DataSource`.
    """

    name = "tiny_imagenet"

    def __init__(self, files: Mapping[str, Path], limit: int | None = None, holdout: int | None = None) -> None:
        super().__init__(limit, holdout)
        self._files = files

    def load(self, split: str) -> HDF5Images:
        self.normalization  # noqa: B018  (without the mean there is no data set)
        return HDF5Images(self._files[split])

    @cached_property
    def normalization(self) -> MeanPreprocessor:
        mean = read_mean(self._files["mean"])
        return MeanPreprocessor(mean["R"], mean["G"], mean["B"])
