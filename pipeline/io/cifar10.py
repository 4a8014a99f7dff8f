"""CIFAR-10 in the forms it is kept in, and what can stand in its place: a folder of images, or the digits.

The data set: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. 50,000 training and 10,000
test images of 32x32 pixels, RGB, in ten classes, six files of 10,000 images.
"""

import hashlib
import io
import lzma
import os
import pickle
import socket
import tarfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from pipeline.errors import InputError
from pipeline.io.batches import ArrayBatches
from pipeline.io.dataset import Dataset
from pipeline.io.digits import load_digits
from pipeline.io.images import read_image
from pipeline.preprocessing import AffineAugmentation, MeanImagePreprocessor

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGES_PER_FILE = 10_000
SIZE = 32

_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = "test_batch"
_SUFFIXES = {".jpg", ".jpeg", ".png"}

Opener = Callable[[str], BinaryIO]


def cifar10_batches(
    data: str | None, limit: int | None, aug: AffineAugmentation, *, batch_size: int, seed: int, workers: int
) -> tuple[ArrayBatches, ArrayBatches]:
    """The training batches of what `data` names, varied by `aug`, and its test batches, both less the mean image.

    `data` and `limit` are those of `load_cifar10`; the mean is the training images'. Digits are never mirrored.
    """
    dataset = load_cifar10(data, limit)
    if not dataset.mirrors:
        aug = replace(aug, horizontal_flip=False)
    make = partial(
        ArrayBatches,
        class_names=dataset.classes,
        batch_size=batch_size,
        preprocessors=[MeanImagePreprocessor(dataset.mean_image())],
        workers=workers,
    )
    return (
        make(dataset.train_images, dataset.train_labels, training=True, seed=seed, aug=aug),
        make(dataset.test_images, dataset.test_labels),
    )


def load_cifar10(data: str | None = None, limit: int | None = None) -> Dataset:
    """The data set that `data` names, or `limit` training and test images of it (see `Dataset.limit`).

    Args:
        data: None for the official archive, out of Keras' cache or downloaded; "digits" for scikit-learn's digits;
            the path of `cifar-10-python.tar.gz` or `cifar-10-binary.tar.gz`; a folder in the layout of either; or a
            folder `train/<class>/*.{png,jpg}` and `test/<class>/*`.

    Raises:
        InputError: nothing of this kind is there, it can't be downloaded, or what is there isn't whole.
    """
    dataset = load_digits() if data == "digits" else _load(data)
    return dataset if limit is None else dataset.limit(limit)


def _load(data: str | None) -> Dataset:
    path = Path(data) if data is not None else _official_archive()
    if path.is_file():
        return _load_archive(path)
    if (path / _TRAIN[0]).is_file():
        return _load_batches(_read_python, lambda name: open(path / name, "rb"))
    if (path / f"{_TRAIN[0]}.bin").is_file():
        return _load_batches(_read_binary, lambda name: open(path / f"{name}.bin", "rb"))
    if (path / "train").is_dir() and (path / "test").is_dir():
        return _load_folder(path)
    raise InputError(
        f"--data {data} {'holds no CIFAR-10' if path.is_dir() else 'does not exist'}; expected cifar-10-python.tar.gz "
        "or cifar-10-binary.tar.gz, the folder unpacked from either, train/<class>/ and test/<class>/ with PNG or "
        "JPEG images, or the word digits"
    )


def _official_archive() -> Path:
    """The official archive with its digest checked, downloaded into Keras' cache unless it is there already."""
    from keras.utils import get_file

    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    cache = home / "datasets"
    # The second name is the one that keras.datasets.cifar10.load_data gives to the same file.
    names = ("cifar-10-python.tar.gz", "cifar-10-batches-py-target_archive")
    for path in (cache / name for name in names):
        if path.is_file():
            with open(path, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == SHA256:
                    return path
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)
    try:
        return Path(get_file(names[0], URL, cache_dir=home, file_hash=SHA256, hash_algorithm="sha256"))
    except Exception as error:  # get_file wraps every failure in a bare Exception
        raise InputError(
            f"can't download {URL} ({error}); put the file at {cache / names[0]}, or name its place with --data, or "
            "try --data digits, which needs no download"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _load_archive(path: Path) -> Dataset:
    """Reads the members that it expects by their names; nothing is unpacked to disk."""
    try:
        with closing(tarfile.open(path)) as archive:
            members = {member.name: member for member in archive if member.isfile()}

            def open_member(name: str) -> BinaryIO:
                if name not in members:
                    raise InputError(f"{path} lacks {name}; expected the official CIFAR-10 archive")
                return archive.extractfile(members[name])

            if f"cifar-10-batches-py/{_TRAIN[0]}" in members:
                return _load_batches(_read_python, lambda name: open_member(f"cifar-10-batches-py/{name}"))
            return _load_batches(_read_binary, lambda name: open_member(f"cifar-10-batches-bin/{name}.bin"))
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise InputError(
            f"{path} is not a whole CIFAR-10 archive: it doesn't unpack; name another file, or download it from {URL}"
        ) from error


def _load_batches(read: Callable[[bytes, str], tuple[np.ndarray, np.ndarray]], opener: Opener) -> Dataset:
    """Joins the six files of an official layout; `read` turns one file's bytes into rows of pixels and labels."""
    parts = []
    for name in (*_TRAIN, _TEST):
        try:
            with opener(name) as file:
                rows, labels = read(file.read(), name)
        except OSError as error:
            raise InputError(f"can't read {name} of CIFAR-10: {error.strerror}") from error
        if rows.dtype != np.uint8 or rows.shape != (IMAGES_PER_FILE, 3 * SIZE * SIZE):
            raise InputError(f"{name} holds {rows.dtype} {rows.shape}; expected {IMAGES_PER_FILE} images of 3072 bytes")
        if labels.shape != (IMAGES_PER_FILE,) or not np.all((labels >= 0) & (labels < len(CLASSES))):
            raise InputError(f"{name} holds labels that are not {IMAGES_PER_FILE} numbers from 0 to 9")
        # A row is the red plane, the green and the blue.
        images = np.ascontiguousarray(rows.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1))
        parts.append((images, labels.astype(np.int64)))
    return Dataset(
        np.concatenate([images for images, _ in parts[:-1]]),
        np.concatenate([labels for _, labels in parts[:-1]]),
        *parts[-1],
        CLASSES,
    )


def _read_binary(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Records of one label byte and 3,072 pixel bytes."""
    record = 1 + 3 * SIZE * SIZE
    if len(content) != IMAGES_PER_FILE * record:
        raise InputError(f"{name}.bin has {len(content)} bytes; expected {IMAGES_PER_FILE * record}")
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    return records[:, 1:], records[:, 0]


def _read_python(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A pickled dictionary with `data`, the rows, and `labels`."""
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        return np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    except InputError:
        raise
    except Exception as error:  # a damaged pickle fails in any way
        raise InputError(f"{name} is not a CIFAR-10 batch ({error}); unpack it again") from error


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds arrays and plain containers; a pickle that names anything else, such as a function, is refused."""

    _GLOBALS = frozenset(
        {("numpy", "ndarray"), ("numpy", "dtype")}
        | {(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}
        | {(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")}
    )

    def find_class(self, module: str, name: str):
        if (module, name) not in self._GLOBALS:
            raise InputError(f"a CIFAR-10 batch names {module}.{name}, which no array needs; it is not loaded")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _load_folder(path: Path) -> Dataset:
    """`train/<class>/` and `test/<class>/`; classes and files in the order of their names."""
    classes = _class_names(path / "train")
    if classes != _class_names(path / "test"):
        raise InputError(f"{path}/train and {path}/test hold different classes; expected the same folders in both")
    train, test = (_load_split(path / split, classes) for split in ("train", "test"))
    return Dataset(*train, *test, classes)


def _class_names(path: Path) -> tuple[str, ...]:
    names = tuple(sorted(entry.name for entry in path.iterdir() if entry.is_dir()))
    if not names:
        raise InputError(f"{path} holds no folder; expected one a class")
    return names


def _load_split(path: Path, classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    files = []
    for label, name in enumerate(classes):
        found = sorted(file for file in (path / name).iterdir() if file.suffix.lower() in _SUFFIXES)
        if not found:
            raise InputError(f"{path / name} holds no PNG or JPEG image")
        files += [(label, file) for file in found]
    images = np.empty((len(files), SIZE, SIZE, 3), np.uint8)

    def read(row: int) -> None:
        file = files[row][1]
        pixels = read_image(file)
        if pixels.shape[:2] != (SIZE, SIZE):
            raise InputError(f"image {file} is {pixels.shape[1]}x{pixels.shape[0]} pixels; expected {SIZE}x{SIZE}")
        images[row] = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)

    with ThreadPoolExecutor() as pool:
        list(pool.map(read, range(len(files))))
    return images, np.array([label for label, _ in files])
