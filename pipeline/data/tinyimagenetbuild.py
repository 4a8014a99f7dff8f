"""Convert Tiny ImageNet's images to HDF5 files; part of the training images become the test set."""

import logging
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from pipeline.data import tinyimagenetfiles
from pipeline.data.textfiles import write_mean
from pipeline.errors import InputError
from pipeline.files import atomic
from pipeline.files.lock import Lock
from pipeline.io.hdf5datasetwriter import HDF5DatasetWriter
from pipeline.io.imagereader import ImageReader
from pipeline.utils.progress import Progress

_log = logging.getLogger(__name__)


def build(
    paths: SimpleNamespace, reader: ImageReader, *, test_images: int, seed: int, overwrite: bool, progress: Progress
) -> dict[str, float]:
    """Write the HDF5 files for training, validation and test, and the mean of the training images.

    All files appear together at the end, or none.

    Args:
        paths: the inputs `train_images`, `val_images`, `val_mappings`, `wordnet_ids` and `word_labels`, and the outputs
            `train_hdf5`, `val_hdf5`, `test_hdf5` and `mean`, in one folder.
        reader: decodes the images.
        test_images: number of training images of each class to move to the test set; for a class with no more images
            than that, a tenth of them is moved, at least one.
        seed: seed of the choice of test images.
        overwrite: replace the outputs if they exist.
        progress: shows the progress of each file.

    Returns:
        The mean of each channel R, G and B, 0 to 255.

    Raises:
        InputError: an input is missing, damaged or contradicts another, or an output already exists.
    """
    outputs = (paths.train_hdf5, paths.val_hdf5, paths.test_hdf5, paths.mean)
    wordnet_ids = tinyimagenetfiles.read_wordnet_ids(paths.wordnet_ids)
    words = tinyimagenetfiles.read_words(paths.word_labels, wordnet_ids)
    train_paths, train_ids = tinyimagenetfiles.list_train(paths.train_images, wordnet_ids)
    val_paths, val_ids = tinyimagenetfiles.list_val(paths.val_images, paths.val_mappings, wordnet_ids)
    test_counts = _test_counts(Counter(train_ids), test_images, paths.train_images)
    folder = paths.mean.parent
    atomic.make_folder(folder)
    with Lock(folder):
        tinyimagenetfiles.check_outputs(outputs, overwrite)
        for unfinished in folder.glob("build.*.tmp"):
            shutil.rmtree(unfinished)
        with tempfile.TemporaryDirectory(prefix="build.", suffix=".tmp", dir=folder) as name:
            staging = [Path(name) / path.name for path in outputs]
            train_hdf5, val_hdf5, test_hdf5, mean_json = staging
            # Decoding starts here, and continues while scikit-learn is imported.
            val_images = reader.read(val_paths)
            train_labels, val_labels, train_rows, test_rows = _label_and_split(
                wordnet_ids, train_ids, val_ids, test_counts, seed
            )
            try:
                write = partial(_write_split, shape=reader.shape, classes=(wordnet_ids, words), progress=progress)
                write(val_hdf5, val_images, val_labels)
                images = reader.read([train_paths[row] for row in train_rows])
                mean = write(train_hdf5, images, train_labels[train_rows])
                images = reader.read([train_paths[row] for row in test_rows])
                write(test_hdf5, images, train_labels[test_rows])
            except InputError:
                # Read the images of all splits, so that the error counts every unreadable one.
                for _ in reader.read([*val_paths, *train_paths]):
                    pass
                raise
            write_mean(mean_json, mean)
            # Training needs the mean, so remove it first and write it last: a mix of two builds can't be used.
            paths.mean.unlink(missing_ok=True)
            atomic.flush(folder)
            for temporary, path in zip(staging, outputs, strict=True):
                os.replace(temporary, path)
            atomic.flush(folder)
    return mean


def _test_counts(images: Counter[str], test_images: int, folder: Path) -> dict[str, int]:
    """Return the number of test images per class: `test_images`, or a tenth if the class has no more than that."""
    fewer = {}
    for wordnet_id, count in images.items():
        if count < 2:
            raise InputError(f"{folder / wordnet_id} holds {count} image; expected at least 2, one of them for testing")
        if count <= test_images:
            fewer[wordnet_id] = max(1, round(count / 10))
    if fewer:
        wordnet_id, count = min(fewer.items())
        _log.info(
            f"test images: {test_images} per class, but only a tenth in each of {len(fewer):,} classes that have no "
            f"more than that, such as {count} of {images[wordnet_id]} in {wordnet_id}"
        )
    return dict.fromkeys(images, test_images) | fewer


def _label_and_split(
    wordnet_ids: Sequence[str], train_ids: Sequence[str], val_ids: Sequence[str], test_counts: dict[str, int], seed: int
) -> tuple[np.ndarray, ...]:
    """Return the labels of training and validation images, and the rows of the training and test split."""
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import LabelEncoder

    encoder = LabelEncoder().fit(wordnet_ids)
    train_labels, val_labels = encoder.transform(train_ids), encoder.transform(val_ids)
    sizes = np.bincount(train_labels)
    counts = np.array([test_counts[wordnet_id] for wordnet_id in encoder.classes_])
    parts = []
    # A stratified split takes equally many of classes of equal size.
    for size in np.unique(sizes):
        alike = np.flatnonzero(sizes == size)
        rows = np.flatnonzero(np.isin(train_labels, alike))
        test_size = counts[alike].sum()
        parts.append(train_test_split(rows, test_size=test_size, stratify=train_labels[rows], random_state=seed))
    train_rows, test_rows = map(np.concatenate, zip(*parts, strict=True))
    return train_labels, val_labels, train_rows, test_rows


def _write_split(
    path: Path, images: Iterator[np.ndarray], labels: Sequence[int], shape: tuple, classes: tuple, progress: Progress
) -> dict[str, float]:
    """Write the images of an `ImageReader` and their labels to the HDF5 file `path`; return the mean.

    `shape` is (height, width); `classes` are the WordNet ids in the order of the labels, and their words.
    """
    start, done = time.perf_counter(), 0
    height, width = shape
    sums = np.zeros(3)
    with (
        # The reader yields many images at a time, so no buffer is needed.
        HDF5DatasetWriter((len(labels), height, width, 3), path, buffer_size=1) as writer,
        progress(path.name, len(labels), "images") as advance,
    ):
        writer.store_class_labels(*classes)
        for decoded in images:
            writer.add(decoded, labels[done : done + len(decoded)])
            sums += cv2.sumElems(decoded.reshape(-1, width, 3))[:3]
            done += len(decoded)
            advance(len(decoded))
    seconds = time.perf_counter() - start
    _log.info(f"{path.name}: {done:,} images of {len(classes[0])} classes in {seconds:.1f} s")
    blue, green, red = sums / (done * height * width)
    return {"R": red, "G": green, "B": blue}
