"""Batches out of an HDF5 file that may be larger than memory (see `pipeline.io.hdf5dataset`)."""

import hashlib
import os
import weakref
from collections.abc import Callable, Sequence
from os import PathLike

import numpy as np

from pipeline.errors import InputError
from pipeline.io.batches import Batches
from pipeline.io.hdf5dataset import read_hdf5_dataset
from pipeline.utils import memory, randomness


class HDF5DatasetGenerator(Batches):
    """`Batches` of the images in the file `db_path`, read row by row as they are needed.

    Rows are read past the HDF5 library, by their place in the file: from several threads at once, into the batch, and
    with no page of the file counted as this process's memory.

    Args:
        db_path: a file that `HDF5DatasetWriter` wrote.
        batch_size, preprocessors, aug, mixing, binarize, training, seed, workers: see `Batches`.
        classes: number of classes; that of the file's `label_names` if None.
        limit: take this many images, a fixed choice, or all if None or if there are fewer.
        holdout: leave out those that a `limit` of so many takes, and choose among the others.

    Attributes:
        label_names: the name that stands for each label in the source of the data; as many as the file holds.
        class_names: what people call the classes: the file's `words`, else its `label_names`, else numbers.

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
        *,
        mixing: Callable | None = None,
        training: bool = False,
        seed: int = 0,
        limit: int | None = None,
        holdout: int | None = None,
        workers: int = 1,
    ) -> None:
        self._dataset = dataset = read_hdf5_dataset(db_path)
        # Given back with the object, also if what follows refuses an argument.
        self._close_file = weakref.finalize(self, os.close, dataset.descriptor)
        if limit is not None and limit < 1:
            raise InputError(f"limit is {limit}; expected a number of images of at least 1")
        if classes is None:
            classes = len(dataset.label_names)
            if not classes:
                raise InputError(f"data file {dataset.path} doesn't name its classes; give their number, classes")
        if classes <= dataset.labels.max():
            raise InputError(f"{dataset.path} holds labels up to {dataset.labels.max()}; expected {classes} classes")
        self.label_names = dataset.label_names
        names = dataset.words or dataset.label_names
        self.class_names = names if len(names) == classes else tuple(map(str, range(classes)))
        self._rows = np.arange(len(dataset.labels))
        if holdout is not None and not 0 < holdout < len(self._rows):
            raise InputError(f"holdout is {holdout}, of {len(self._rows)} images in {dataset.path}; expected fewer")
        if limit is not None or holdout is not None:
            chosen = randomness.permutation(0, 0, len(self._rows))[holdout:]
            self._rows = np.sort(chosen[:limit])
        super().__init__(
            dataset.labels[self._rows],
            classes,
            batch_size,
            preprocessors=preprocessors or (),
            aug=aug,
            mixing=mixing,
            binarize=binarize,
            training=training,
            seed=seed,
            workers=workers,
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self._dataset.shape[1:]

    def digest(self) -> str:
        """A digest of the file's digests and of the means that are subtracted: the same digest, the same data."""
        digest = hashlib.sha256(self._dataset.digest.encode())
        for preprocessor in self.preprocessors:
            if hasattr(preprocessor, "mean"):
                digest.update(np.asarray(preprocessor.mean, np.float32).tobytes())
        return digest.hexdigest()

    def close(self) -> None:
        super().close()
        self._close_file()

    def _read(self, rows: np.ndarray) -> np.ndarray:
        images = memory.empty((len(rows), *self.image_shape), np.uint8)
        places = self._dataset.offset + self._rows[rows] * images[0].size
        try:
            for image, place in zip(images, places.tolist(), strict=True):
                if os.preadv(self._dataset.descriptor, [image], place) != image.size:
                    raise InputError(f"data file {self._dataset.path} was cut short; build it again")
        except OSError as error:
            raise OSError(f"can't read data file {self._dataset.path}: {error.strerror or error}") from error
        return images
