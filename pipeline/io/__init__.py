"""What goes to and comes from the disk. Names load on first use: reading images needs no Keras."""

from pipeline.lazy import names

__getattr__, __all__ = names(
    __name__,
    {
        "ArrayBatches": "batches",
        "Batches": "batches",
        "Checkpoint": "checkpoint",
        "Dataset": "dataset",
        "HDF5DatasetGenerator": "hdf5datasetgenerator",
        "HDF5DatasetWriter": "hdf5datasetwriter",
        "cifar10_batches": "cifar10",
        "load_cifar10": "cifar10",
        "read_checkpoint": "checkpoint",
        "save_checkpoint": "checkpointwriter",
        "tiny_imagenet_batches": "tinyimagenet",
    },
)
