"""CIFAR-10 in the forms it is kept in, and what can stand in its place: a folder of images, or the digits.

The data set: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. 50,000 training and 10,000
test images of 32x32 pixels, RGB, in ten classes, six files of 10,000 images.
"""

import hashlib
import socket
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.backend import keras_home
from pipeline.errors import InputError
from pipeline.flags import DIGITS
from pipeline.io import archives
from pipeline.io.batches import ArrayBatches, check_choice
from pipeline.io.dataset import Dataset
from pipeline.io.digits import load_digits
from pipeline.io.files import read_regular
from pipeline.io.imagereader import ImageReader
from pipeline.io.images import is_foreign, list_images
from pipeline.io.pickledarrays import read_pickled
from pipeline.preprocessing import MeanImagePreprocessor
from pipeline.recipe import Recipe

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGES_PER_FILE = 10_000
SIZE = 32

_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = "test_batch"
_RECORD = 1 + 3 * SIZE * SIZE

# The files of each official layout, and the bytes that each has at most.
_MOST_PICKLED, _MOST_BESIDE = 1 << 25, 1 << 16
_PYTHON = dict.fromkeys((*_TRAIN, _TEST), _MOST_PICKLED) | dict.fromkeys(("batches.meta", "readme.html"), _MOST_BESIDE)
_BINARY = {f"{name}.bin": IMAGES_PER_FILE * _RECORD for name in (*_TRAIN, _TEST)} | dict.fromkeys(
    ("batches.meta.txt", "readme.html"), _MOST_BESIDE
)


def cifar10_batches(
    data: str | None,
    recipe: Recipe,
    *,
    limit: int | None,
    holdout: int | None,
    batch_size: int,
    seed: int,
    workers: int,
) -> tuple[ArrayBatches, ArrayBatches]:
    """The training batches of what `data` names, varied as `recipe` says, and its test batches, less the mean image.

    `data`, `limit` and `holdout` are those of `load_cifar10`; the mean is the training images'. Digits are never
    mirrored.
    """
    dataset = load_cifar10(data, limit, holdout)
    if not dataset.mirrors:
        if recipe.flip != "none":
            print(f"--data {data}: no image is mirrored, which would not show the same")
        recipe = replace(recipe, flip="none")
    varied = {"aug": recipe.augmentation(), "mixing": recipe.mixing()}
    make = partial(
        ArrayBatches,
        class_names=dataset.classes,
        batch_size=batch_size,
        preprocessors=[MeanImagePreprocessor(dataset.mean_image())],
        workers=workers,
    )
    return (
        make(dataset.train_images, dataset.train_labels, training=True, seed=seed, **varied),
        make(dataset.test_images, dataset.test_labels),
    )


def cifar10_split(
    data: str | None,
    split: str,
    *,
    limit: int | None,
    holdout: int | None,
    digest: str | None,
    mirrors: bool = False,
    **options,
) -> ArrayBatches:
    """What a network is scored on that was trained on `data`, with `limit` and `holdout`, less its training mean.

    Args:
        split: "test" for every test image, "val" for those that training validated on.
        digest: of what it was trained on (see `data_digest`), by which a choice of images is known to be the same.
        mirrors: whether they are to be scored mirrored too.
        options: batch_size and workers (see `Batches`).

    Raises:
        InputError: the data can't be read, doesn't show the same mirrored, or other images of it would be chosen.
    """
    whole = load_cifar10(data)
    if mirrors and not whole.mirrors:
        raise InputError(f"{data} are not what they show once they are mirrored; leave --tta flip out")
    trained = whole.choose(limit, holdout)
    make = partial(
        ArrayBatches,
        class_names=whole.classes,
        preprocessors=[MeanImagePreprocessor(trained.mean_image())],
        **options,
    )
    val = make(trained.test_images, trained.test_labels)
    if trained is not whole:  # the mean is that of the choice too
        check_choice(make(trained.train_images, trained.train_labels), val, digest)
    return make(whole.test_images, whole.test_labels) if split == "test" else val


def load_cifar10(data: str | None = None, limit: int | None = None, holdout: int | None = None) -> Dataset:
    """The data set that `data` names, or that part of it which `limit` and `holdout` choose (see `Dataset.choose`).

    Args:
        data: None for the official archive, out of Keras' cache or downloaded; "digits" for scikit-learn's digits;
            the path of `cifar-10-python.tar.gz` or `cifar-10-binary.tar.gz`; a folder in the layout of either; or a
            folder of images, `train/<class>/` and `test/<class>/` (see `pipeline.io.images`).

    Raises:
        InputError: nothing of this kind is there, it can't be downloaded, or what is there isn't whole.
    """
    dataset = load_digits() if data == DIGITS else _load(data)
    return dataset.choose(limit, holdout)


def _load(data: str | None) -> Dataset:
    path = Path(data) if data is not None else _official_archive()
    if path.is_file():
        return _load_archive(path)
    if (path / _TRAIN[0]).exists():
        return _join(path, _read_files(path, _PYTHON))
    if (path / f"{_TRAIN[0]}.bin").exists():
        return _join(path, _read_files(path, _BINARY))
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

    home = keras_home()
    cache = home / "datasets"
    # The second name is the one that keras.datasets.cifar10.load_data gives to the same file.
    names = ("cifar-10-python.tar.gz", "cifar-10-batches-py-target_archive")
    for path in (cache / name for name in names):
        if path.is_file():
            with open(path, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == SHA256:
                    return path
    with suppress(OSError):  # Keras downloads to another place where there is none
        cache.mkdir(parents=True, exist_ok=True)
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
    """The members that it expects by their names, as they come; nothing is unpacked to disk."""
    expected = {f"cifar-10-batches-py/{name}": most for name, most in _PYTHON.items()}
    expected |= {f"cifar-10-batches-bin/{name}": most for name, most in _BINARY.items()}
    try:
        return _join(path, archives.read_tar(path, expected, most=7 * _MOST_PICKLED))
    except OSError as error:
        raise InputError(
            f"{path} is not a whole CIFAR-10 archive: {error}; name another file, or download it from {URL}"
        ) from error


def _read_files(folder: Path, expected: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    for name, most in expected.items():
        if Path(name).stem in (*_TRAIN, _TEST):
            try:
                yield name, read_regular(folder / name, most)
            except OSError as error:
                raise InputError(f"can't read {folder / name} of CIFAR-10: {error.strerror}") from error


def _join(path: Path, files: Iterable[tuple[str, bytes]]) -> Dataset:
    """The data set of an official layout's `files`, each a name and a content, which `path` holds."""
    parts = {}
    for member, content in files:
        name = Path(member).name
        if Path(name).stem in (*_TRAIN, _TEST):
            read = _read_binary if name.endswith(".bin") else _read_python
            parts[Path(name).stem] = _read_file(read, content, name)
    for name in (*_TRAIN, _TEST):
        if name not in parts:
            raise InputError(f"{path} lacks {name}; expected all files of the official layout")
    train = [parts[name] for name in _TRAIN]
    return Dataset(
        np.concatenate([images for images, _ in train]),
        np.concatenate([labels for _, labels in train]),
        *parts[_TEST],
        CLASSES,
    )


def _read_file(read: Callable, content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (10000, 32, 32, 3), and labels of one file; `read` turns it into rows of pixels and labels."""
    try:
        rows, labels = read(content)
    except ValueError as error:
        raise InputError(f"{name} is not a CIFAR-10 batch: {error}; unpack it again") from error
    if rows.dtype != np.uint8 or rows.shape != (IMAGES_PER_FILE, _RECORD - 1):
        raise InputError(f"{name} holds {rows.dtype} {rows.shape}; expected {IMAGES_PER_FILE} images of 3072 bytes")
    if labels.shape != (IMAGES_PER_FILE,) or not np.all((labels >= 0) & (labels < len(CLASSES))):
        raise InputError(f"{name} holds labels that are not {IMAGES_PER_FILE} numbers from 0 to 9")
    # A row is the red plane, the green and the blue.
    images = np.ascontiguousarray(rows.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1))
    return images, labels.astype(np.int64)


def _read_binary(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Records of one label byte and 3,072 pixel bytes."""
    if len(content) != IMAGES_PER_FILE * _RECORD:
        raise InputError(f"it has {len(content)} bytes; expected {IMAGES_PER_FILE * _RECORD}")
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    return records[:, 1:], records[:, 0]


def _read_python(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """A pickled dictionary with `data`, the rows, and `labels`."""
    batch = read_pickled(content)
    if not isinstance(batch, dict) or not {b"data", b"labels"} <= batch.keys():
        raise InputError("it is no dictionary with data and labels")
    rows, labels = batch[b"data"], batch[b"labels"]
    if isinstance(labels, list) and all(type(label) is int for label in labels):
        labels = np.array(labels)
    if not isinstance(rows, np.ndarray) or not isinstance(labels, np.ndarray):
        raise InputError("its data is no array, or its labels are no whole numbers")
    return rows, labels


def _load_folder(path: Path) -> Dataset:
    """`train/<class>/` and `test/<class>/`, and folders below; classes and files in the order of their names."""
    folders = path / "train", path / "test"
    train, test = (
        _files_by_class(folder, images) for folder, images in zip(folders, list_images(*folders), strict=True)
    )
    for ours, others, where, elsewhere in ((train, test, "train", "test"), (test, train, "test", "train")):
        if missing := sorted(ours.keys() - others.keys()):
            named = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise InputError(
                f"{path}/train and {path}/test hold different classes: {elsewhere} lacks {named}, which {where} has; "
                "expected the same folders in both"
            )
    if len(train) < 2:
        raise InputError(f"{path}/train holds one class alone, {next(iter(train))}; expected at least two")
    classes = tuple(sorted(train))
    labels = [np.repeat(np.arange(len(classes)), [len(split[name]) for name in classes]) for split in (train, test)]
    files = [file for split in (train, test) for name in classes for file in split[name]]
    images, done = np.empty((len(files), SIZE, SIZE, 3), np.uint8), 0
    with ImageReader((SIZE, SIZE)) as reader:
        for decoded in reader.read(files):
            images[done : done + len(decoded)] = decoded[..., ::-1]  # RGB
            done += len(decoded)
    count = len(labels[0])
    return Dataset(images[:count], labels[0], images[count:], labels[1], classes)


def _files_by_class(folder: Path, files: Sequence[str]) -> dict[str, list[str]]:
    """Those of `files`, image files below `folder`, that lie in each of its folders, by the name of the class."""
    folder_of = {}
    for entry in folder.iterdir():
        if entry.is_dir() and not is_foreign(entry.name):
            # One name has several forms in Unicode, and file systems differ in which they give back.
            name = unicodedata.normalize("NFC", entry.name)
            if name in folder_of:
                raise InputError(f"{folder} holds two folders {name}, written in two forms of Unicode; join them")
            folder_of[name] = entry.name
    found = {entry: [] for entry in folder_of.values()}
    start = len(str(folder)) + 1
    for file in files:
        entry, *below = file[start:].split("/")
        if not below:
            raise InputError(f"image {file} lies in no class's folder; expected {folder}/<class>/")
        found[entry].append(file)
    if empty := [entry for entry, files in found.items() if not files]:
        raise InputError(f"{folder / min(empty)} holds no PNG or JPEG image")
    return {name: found[entry] for name, entry in folder_of.items()}
