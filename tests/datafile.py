"""A small data file."""

import numpy as np
import pytest

from pipeline.io import HDF5DatasetWriter

COUNT = 50
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 10, 3), np.uint8)
LABELS = np.random.default_rng(1).permutation(np.arange(COUNT) % 3)


def write(path, images=IMAGES, labels=LABELS, step=7, **options):
    """Write a data file of three classes, `step` images at a time."""
    with HDF5DatasetWriter(images.shape, path, **options) as writer:
        writer.store_class_labels(["n01", "n02", "n03"], ["ant", "bee, wasp", "cow"])
        for start in range(0, len(images), step):
            writer.add(images[start : start + step], labels[start : start + step])
    return path


@pytest.fixture
def data(tmp_path):
    return write(tmp_path / "data.hdf5")
