"""Tiny ImageNet, converted by its build to three HDF5 files and a mean colour."""

from functools import cached_property

from pipeline.data.source import DataSource
from pipeline.data.textfiles import read_mean
from pipeline.io.hdf5dataset import HDF5Images
from pipeline.preprocessing import MeanPreprocessor


class TinyImageNet(DataSource):
    """BGR images, minus the mean colour of all training images, held-out ones included.

    Args:
        data: the paths of the build's files by the names "train", "val", "test" and "mean".
        limit, holdout: see `DataSource`.
    """

    name = "tiny_imagenet"
    colours = "BGR"
    normalizes_subset = False

    def load(self, split: str) -> HDF5Images:
        return HDF5Images(self.data[split])

    @cached_property
    def normalization(self) -> MeanPreprocessor:
        mean, _ = read_mean(self.data["mean"])
        return MeanPreprocessor(mean["R"], mean["G"], mean["B"])
