"""Tiny ImageNet as the build wrote it: three HDF5 files, and the training set's mean colour."""

from functools import cached_property

from pipeline.data.source import DataSource
from pipeline.data.tinyimagenetfiles import read_mean
from pipeline.io.hdf5dataset import HDF5Images
from pipeline.preprocessing import MeanPreprocessor


class TinyImageNet(DataSource):
    """Images in BGR, less the mean colour: that of all training images, also where a part of them is held out.

    Args:
        data: the paths of the files that the build wrote, by the names "train", "val", "test" and "mean".
        limit, holdout: see `DataSource`.
    """

    name = "tiny_imagenet"
    normalizes_choice = False

    def load(self, split: str) -> HDF5Images:
        return HDF5Images(self.data[split])

    @cached_property
    def normalization(self) -> MeanPreprocessor:
        mean = read_mean(self.data["mean"])
        return MeanPreprocessor(mean["R"], mean["G"], mean["B"])
