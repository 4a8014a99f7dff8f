"""Tiny ImageNet's raw images into HDF5 files: the training set split in two, every image decoded once."""

import logging
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from pipeline.data import tinyimagenetfiles
from pipeline.errors import InputError
from pipeline.files import atomic
from pipeline.files.lock import Lock
from pipeline.io.hdf5datasetwriter import HDF5DatasetWriter
from pipeline.io.imagereader import ImageReader

_log = logging.getLogger(__name__)

Progress = Callable[[str, float, str], AbstractContextManager[Callable[[float], None]]]
"""Called with a description, a total and its unit; a context manager of what to call with each further amount."""


def build(
    places: SimpleNamespace, reader: ImageReader, *, test_images: int, seed: int, overwrite: bool, progress: Progress
) -> dict[str, float]:
    """Write the HDF5 files of the training, validation and test set, and the training set's mean; return the mean.

    All appear together at the end, or none.

    Args:
        places: the paths `train_images`, `val_images`, `val_mappings`, `wordnet_ids`, `word_labels` of what is read,
            and `train_hdf5`, `val_hdf5`, `test_hdf5`, `mean` of what is written, in one folder.
        reader: decodes the images.
        test_images: so many training images of each class become the test set, chosen by `seed`; of a class that has no
            more than that, a tenth.
        progress: shows how far each file is.

    Raises:
        InputError: a raw file is missing, damaged or contradicts another, or an output exists already.
    """
    outputs = (places.train_hdf5, places.val_hdf5, places.test_hdf5, places.mean)
    wordnet_ids = tinyimagenetfiles.read_wordnet_ids(places.wordnet_ids)
    words = tinyimagenetfiles.read_words(places.word_labels, wordnet_ids)
    train_paths, train_ids = tinyimagenetfiles.list_train(places.train_images, wordnet_ids)
    val_paths, val_ids = tinyimagenetfiles.list_val(places.val_images, places.val_mappings, wordnet_ids)
    test_counts = _test_counts(Counter(train_ids), test_images, places.train_images)
    folder = places.mean.parent
    atomic.make_folder(folder)
    with Lock(folder):
        tinyimagenetfiles.check_outputs(outputs, overwrite)
        for unfinished in folder.glob("build.*.tmp"):
            shutil.rmtree(unfinished)
        with tempfile.TemporaryDirectory(prefix="build.", suffix=".tmp", dir=folder) as name:
            staging = [Path(name) / path.name for path in outputs]
            train_hdf5, val_hdf5, test_hdf5, mean_json = staging
            # Decoding begins here, while scikit-learn loads, which takes as long as a fifth of it.
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
                # An image that can't be read: how many there are in all splits, so that all can be mended at once.
                for _ in reader.read([*val_paths, *train_paths]):
                    pass
                raise
            tinyimagenetfiles.write_mean(mean_json, mean)
            # Whatever needs the data needs the mean: with it gone first and back last, no mixture counts as a build.
            places.mean.unlink(missing_ok=True)
            atomic.flush(folder)
            for temporary, path in zip(staging, outputs, strict=True):
                os.replace(temporary, path)
            atomic.flush(folder)
    return mean


def _test_counts(images: Counter[str], test_images: int, folder: Path) -> dict[str, int]:
    """How many of the `images` of each class become test images: `test_images`, of fewer a tenth."""
    fewer = {}
    for wordnet_id, count in images.items():
        if count < 2:
            raise InputError(f"{folder / wordnet_id} holds {count} image; expected one to train on and one to test on")
        if count <= test_images:
            fewer[wordnet_id] = max(1, round(count / 10))
    if fewer:
        wordnet_id, count = min(fewer.items())
        _log.info(
            f"test images: {test_images} of each class, and a tenth of each of {len(fewer):,} that hold no "
            f"more than that, as {count} of the {images[wordnet_id]} of {wordnet_id}"
        )
    return dict.fromkeys(images, test_images) | fewer


def _label_and_split(
    wordnet_ids: Sequence[str], train_ids: Sequence[str], val_ids: Sequence[str], test_counts: dict[str, int], seed: int
) -> tuple[np.ndarray, ...]:
    """The labels of the training and of the validation images, the rows of the former that stay, and those that go."""
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import LabelEncoder

    encoder = LabelEncoder().fit(wordnet_ids)
    train_labels, val_labels = encoder.transform(train_ids), encoder.transform(val_ids)
    sizes = np.bincount(train_labels)
    counts = np.array([test_counts[wordnet_id] for wordnet_id in encoder.classes_])
    parts = []
    # Of classes of the same size a stratified split takes the same number each.
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
    """Write images, as `ImageReader` yields them, and labels to the HDF5 file `path`; return the mean.

    `shape` is (height, width), `classes` the names that stand for the labels, and what people call them.
    """
    start, done = time.perf_counter(), 0
    height, width = shape
    sums = np.zeros(3)
    with (
        # The images come many at a time already.
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
