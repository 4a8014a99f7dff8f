"""Batches from an HDF5 file, which may be larger than memory."""

from collections.abc import Callable, Sequence
from os import PathLike

from pipeline.io.batches import Batches
from pipeline.io.hdf5dataset import HDF5Images


class HDF5DatasetGenerator(Batches):
    """`Batches` of the images in the data file `db_path`.

    Args:
        db_path: the data file, written by `HDF5DatasetWriter`.
        classes: see `HDF5Images`.
        options: other arguments of `Batches`.

    Raises:
        InputError: (a `ValueError`) the file is not valid, or an argument is out of range.
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

    def close(self) -> None:
        """End the threads and close the file; no batch can be made afterwards."""
        super().close()
        self.images.close()
