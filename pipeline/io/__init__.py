"""Images from and to the disk. Names load on first use: reading images needs no Keras."""

from pipeline.utils.lazy import names

__getattr__, __all__ = names(
    __name__,
    {
        "ArrayImages": "imageset",
        "Batches": "batches",
        "HDF5DatasetGenerator": "hdf5datasetgenerator",
        "HDF5DatasetWriter": "hdf5datasetwriter",
        "HDF5Images": "hdf5datasetgenerator",
        "ImageSet": "imageset",
    },
)
