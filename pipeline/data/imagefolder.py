"""A data set in a folder of images: train/<class>/ and test/<class>/, with any subfolders."""

import unicodedata
from collections.abc import Sequence
from functools import cached_property
from itertools import permutations
from pathlib import Path

import numpy as np

from pipeline.data.source import DataSource
from pipeline.errors import InputError
from pipeline.io.imagereader import ImageReader
from pipeline.io.images import is_foreign, list_images
from pipeline.io.imageset import ArrayImages, ImageSet
from pipeline.preprocessing import MeanImagePreprocessor


class ImageFolder(DataSource):
    """JPEG and PNG images of one size, in memory, RGB, minus the mean training image.

    Validation uses the test images, unless training images are held out. Subclasses define `name` and `size`.

    Args:
        data, limit, holdout: see `DataSource`; `data` is the folder.

    Attributes:
        size: (height, width) of every image in pixels.
    """

    size: tuple[int, int]

    def load(self, split: str) -> ImageSet:
        if split == "train" or "_splits" in vars(self):
            return self._splits["train" if split == "train" else "test"]
        return self._test

    @cached_property
    def _splits(self) -> dict[str, ArrayImages]:
        """Training and test images, read together."""
        return self._read("train", "test")

    @cached_property
    def _test(self) -> ArrayImages:
        """The test images, read alone while the training images aren't needed."""
        return self._read("test")["test"]

    def _read(self, *splits: str) -> dict[str, ArrayImages]:
        if self.data is None or not all((Path(self.data) / split).is_dir() for split in splits):
            folders = " and ".join(f"{split}/<class>/" for split in splits)
            found = "is missing" if self.data is None else f"is {self.data}"
            raise InputError(f"`data` {found}; expected a folder with images in {folders}")
        return read_image_folder(Path(self.data), self.size, splits)

    @cached_property
    def normalization(self) -> MeanImagePreprocessor:
        return MeanImagePreprocessor(self.train.mean())


def read_image_folder(
    path: Path, size: tuple[int, int], splits: Sequence[str] = ("train", "test")
) -> dict[str, ArrayImages]:
    """Read the images in the folders `splits` of `path`, classes and files sorted by name.

    Args:
        size: the (height, width) that every image must have, in pixels.

    Returns:
        For each split, its images, uint8 (n, height, width, 3), RGB.

    Raises:
        InputError: a folder is missing, the splits have different classes or fewer than two, or an image can't be read.
    """
    folders = {name: path / name for name in splits}
    found = {
        name: _files_by_class(folder, images)
        for (name, folder), images in zip(folders.items(), list_images(*folders.values()), strict=True)
    }
    for where, elsewhere in permutations(splits, 2):
        if missing := sorted(found[where].keys() - found[elsewhere].keys()):
            named = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise InputError(
                f"{path}/train and {path}/test hold different classes: {where} has {named}, {elsewhere} doesn't; "
                "expected the same folders in both"
            )
    classes = sorted(found[splits[0]])
    if len(classes) < 2:
        raise InputError(f"{path}/{splits[0]} holds only one class, {classes[0]}; expected at least two")
    files = [file for files_of in found.values() for name in classes for file in files_of[name]]
    images, done = np.empty((len(files), *size, 3), np.uint8), 0
    with ImageReader(size) as reader:
        for decoded in reader.read(files):
            images[done : done + len(decoded)] = decoded[..., ::-1]  # RGB
            done += len(decoded)
    sets, start = {}, 0
    for name, files_of in found.items():
        labels = np.repeat(np.arange(len(classes)), [len(files_of[of]) for of in classes])
        sets[name] = ArrayImages(images[start : start + len(labels)], labels, classes)
        start += len(labels)
    return sets


def _files_by_class(folder: Path, files: Sequence[str]) -> dict[str, list[str]]:
    """Group `files`, image files below `folder`, by class, which is the name of the subfolder."""
    folder_of = {}
    for entry in folder.iterdir():
        if entry.is_dir() and not is_foreign(entry.name):
            # File systems return different Unicode forms of the same name.
            name = unicodedata.normalize("NFC", entry.name)
            if name in folder_of:
                raise InputError(f"{folder} holds two folders {name} in different Unicode forms; merge them")
            folder_of[name] = entry.name
    found = {entry: [] for entry in folder_of.values()}
    start = len(str(folder)) + 1
    for file in files:
        entry, *below = file[start:].split("/")
        if not below:
            raise InputError(f"image {file} is not in a class's folder; expected {folder}/<class>/")
        found[entry].append(file)
    if empty := [entry for entry, files in found.items() if not files]:
        raise InputError(f"{folder / min(empty)} holds no PNG or JPEG image")
    return {name: found[entry] for name, entry in folder_of.items()}
