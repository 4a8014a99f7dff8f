"""Read and write images and data files, and make batches. Modules load on first use: reading images needs no Keras."""

from pipeline.utils.lazy import names

__getattr__, __all__ = names(
    __name__,
    batches="Batches",
    hdf5dataset="HDF5Images",
    hdf5datasetgenerator="HDF5DatasetGenerator",
    hdf5datasetwriter="HDF5DatasetWriter",
    imageset="ArrayImages ImageSet",
)
