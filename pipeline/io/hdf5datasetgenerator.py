"""Batches out of an HDF5 file that may be larger than memory (see `pipeline.io.hdf5dataset`)."""

import math
import os
import weakref
from collections.abc import Callable, Sequence
from os import PathLike

import numpy as np

from pipeline.errors import InputError
from pipeline.io.batches import Batches
from pipeline.io.hdf5dataset import read_hdf5_dataset
from pipeline.io.imageset import ImageSet
from pipeline.utils import memory


class HDF5Images(ImageSet):
    """The images of a file that `HDF5DatasetWriter` wrote, read row by row as they are needed.

    Rows are read past the HDF5 library, by their place in the file: from several threads at once, into the batch, and
    with no page of the file counted as this process's memory.

    Args:
        path: the file.
        classes: number of classes; that of the file's `label_names` if None.

    Attributes:
        label_names: the name that stands for each label in the source of the data; as many as the file holds.
        class_names: what people call the classes: the file's `words`, else its `label_names`, else numbers.

    Raises:
        InputError: (a `ValueError`) the file is not what was written, or has other classes.
    """

    def __init__(self, path: str | PathLike, classes: int | None = None) -> None:
        self._dataset = dataset = read_hdf5_dataset(path)
        # Given back with the last object that reads it, also if what follows refuses an argument.
        self._close_file = weakref.finalize(dataset, os.close, dataset.descriptor)
        if classes is None:
            classes = len(dataset.label_names)
            if not classes:
                raise InputError(f"data file {dataset.path} doesn't name its classes; give their number, `classes`")
        if classes <= dataset.labels.max():
            raise InputError(f"{dataset.path} holds labels up to {dataset.labels.max()}; expected {classes} classes")
        self.labels = dataset.labels
        self.label_names = dataset.label_names
        names = dataset.words or dataset.label_names
        self.class_names = names if len(names) == classes else tuple(map(str, range(classes)))
        self.image_shape = dataset.shape[1:]
        self._rows = np.arange(len(self.labels))

    def stored(self, rows: np.ndarray) -> np.ndarray:
        images = memory.empty((len(rows), *self.image_shape), np.uint8)
        places = self._dataset.offset + self._rows[rows] * math.prod(self.image_shape)
        try:
            for image, place in zip(images, places.tolist(), strict=True):
                if os.preadv(self._dataset.descriptor, [image], place) != image.size:
                    raise InputError(f"data file {self._dataset.path} was cut short; build it again")
        except OSError as error:
            raise OSError(f"can't read data file {self._dataset.path}: {error.strerror or error}") from error
        return images

    def choose(self, rows: np.ndarray) -> "HDF5Images":
        chosen = HDF5Images.__new__(HDF5Images)
        chosen.__dict__ |= self.__dict__ | {"labels": self.labels[rows], "_rows": self._rows[rows]}
        return chosen

    def digest(self) -> str:
        """The digest of the whole file, whatever was chosen from it."""
        return self._dataset.digest

    def close(self) -> None:
        self._close_file()


class HDF5DatasetGenerator(Batches):
    """`Batches` of the images in the file `db_path`.

    Args:
        db_path, classes: see `HDF5Images`.
        batch_size, preprocessors, aug, binarize, options: see `Batches`.

    Raises:
        InputError: (a `ValueError`) the file is not what was written, or an argument can't be used.
    """

    def __init__(
        self,
        db_path: str | PathLike,
        batch_size: int,
        preprocessors: Sequence | None = None,
        aug: Callable | None = None,
        binarize: bool = True,
        classes: int | None = None,
        **options,
    ) -> None:
        images = HDF5Images(db_path, classes)
        super().__init__(images, batch_size, preprocessors=preprocessors or (), aug=aug, binarize=binarize, **options)
