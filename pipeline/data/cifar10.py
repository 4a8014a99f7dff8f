"""CIFAR-10, or in its place a folder of 32x32 images or scikit-learn's digits.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009: 50,000 training and 10,000 test images of
32x32 pixels, RGB, ten classes, in six files of 10,000 images.
"""

import hashlib
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from pipeline.data.digits import load_digits
from pipeline.data.imagefolder import ImageFolder, read_image_folder
from pipeline.errors import InputError, as_input_error
from pipeline.files.pickledarrays import read_pickled
from pipeline.files.regular import read_regular
from pipeline.io import archives
from pipeline.io.imageset import ArrayImages, ImageSet

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGES_PER_FILE = 10_000
SIZE = 32
DIGITS = "digits"
"""The value of `data` for scikit-learn's digits."""

_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = "test_batch"
_FILES = {"train": _TRAIN, "test": (_TEST,)}
_RECORD = 1 + 3 * SIZE * SIZE

# The files of each official layout, with the maximum size in bytes.
_MAX_PICKLED, _MAX_OTHER = 1 << 25, 1 << 16
_PYTHON = dict.fromkeys((*_TRAIN, _TEST), _MAX_PICKLED) | dict.fromkeys(("batches.meta", "readme.html"), _MAX_OTHER)
_BINARY = {f"{name}.bin": IMAGES_PER_FILE * _RECORD for name in (*_TRAIN, _TEST)} | dict.fromkeys(
    ("batches.meta.txt", "readme.html"), _MAX_OTHER
)


class CIFAR10(ImageFolder):
    """CIFAR-10 or a substitute: RGB images of 32x32 pixels, minus the mean training image.

    Validation uses the test images, as in the published runs, unless training images are held out.

    Args:
        data: path of `cifar-10-python.tar.gz` or `cifar-10-binary.tar.gz`, of the folder unpacked from either, or of a
            folder with images in `train/<class>/` and `test/<class>/` (see `pipeline.io.images`); `DIGITS` for
            scikit-learn's digits; None for the official archive, from Keras' cache or downloaded.
        limit, holdout: see `DataSource`.

    Raises:
        InputError: on first use: the data is missing or incomplete, or can't be downloaded.
    """

    name = "cifar10"
    size = (SIZE, SIZE)
    keeps_shuffle = True

    def __init__(self, data: str | None = None, limit: int | None = None, holdout: int | None = None) -> None:
        super().__init__(data, limit, holdout)
        self.mirrors = data != DIGITS

    def digest_of(self, images: ImageSet) -> str:
        return images.digest()  # it determines the mean

    def _read(self, *splits: str) -> dict[str, ArrayImages]:
        if self.data == DIGITS:
            return load_digits()
        path = Path(self.data) if self.data is not None else _official_archive()
        if path.is_file():
            return _load_archive(path)
        first = _FILES[splits[0]][0]
        for ending in ("", ".bin"):
            if (path / f"{first}{ending}").exists():
                return _join(
                    path, _read_files(path, [f"{name}{ending}" for of in splits for name in _FILES[of]]), splits
                )
        if all((path / split).is_dir() for split in splits):
            return read_image_folder(path, self.size, splits)
        raise InputError(
            f"`data` {self.data} {'is not CIFAR-10' if path.is_dir() else 'does not exist'}; expected "
            "cifar-10-python.tar.gz or cifar-10-binary.tar.gz, the folder unpacked from either, a folder with PNG or "
            f"JPEG images in train/<class>/ and test/<class>/, or the word {DIGITS}"
        )


def _official_archive() -> Path:
    """Return the official archive in Keras' cache, downloaded if necessary, its digest checked."""
    from keras.src.backend.config import keras_home
    from keras.utils import get_file

    home = Path(keras_home())
    cache = home / "datasets"
    # keras.datasets.cifar10.load_data stores the same file under the second name.
    names = ("cifar-10-python.tar.gz", "cifar-10-batches-py-target_archive")
    for path in (cache / name for name in names):
        if path.is_file():
            with open(path, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == SHA256:
                    return path
    with suppress(OSError):  # Keras falls back to another folder
        cache.mkdir(parents=True, exist_ok=True)
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)
    try:
        return Path(get_file(names[0], URL, cache_dir=home, file_hash=SHA256, hash_algorithm="sha256"))
    except Exception as error:  # get_file wraps every failure in a bare Exception
        raise InputError(
            f"can't download {URL} ({error}); put the file at {cache / names[0]}, name it with `data`, or use `data` "
            f"{DIGITS}, which needs no download"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _load_archive(path: Path) -> dict[str, ArrayImages]:
    """Read the expected members of an archive into memory; nothing is unpacked to disk."""
    expected = {f"cifar-10-batches-py/{name}": max_bytes for name, max_bytes in _PYTHON.items()}
    expected |= {f"cifar-10-batches-bin/{name}": max_bytes for name, max_bytes in _BINARY.items()}
    hint = f"; name another file, or download it from {URL}"
    with as_input_error(OSError, f"{path} is not a complete CIFAR-10 archive: ", hint):
        return _join(path, archives.read_tar(path, expected, max_bytes=7 * _MAX_PICKLED))


def _read_files(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        with as_input_error(OSError, f"can't read {folder / name} of CIFAR-10: "):
            content = read_regular(folder / name, (_PYTHON | _BINARY)[name])
        yield name, content


def _join(
    path: Path, files: Iterable[tuple[str, bytes]], splits: Iterable[str] = ("train", "test")
) -> dict[str, ArrayImages]:
    """Join the `files` of an official layout at `path`, as (name, content), into the `splits`."""
    parts = {}
    for member, content in files:
        name = Path(member).name
        if Path(name).stem in (*_TRAIN, _TEST):
            read = _read_binary if name.endswith(".bin") else _read_python
            parts[Path(name).stem] = _read_file(read, content, f"{path}: {name}")
    sets = {}
    for split in splits:
        for name in _FILES[split]:
            if name not in parts:
                raise InputError(f"{path} lacks {name}; expected {', '.join(_FILES[split])}")
        images, labels = map(np.concatenate, zip(*(parts[name] for name in _FILES[split]), strict=True))
        sets[split] = ArrayImages(images, labels, CLASSES)
    return sets


def _read_file(read: Callable, content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images, uint8 (10000, 32, 32, 3), and labels of one file; `read` parses it into pixel rows and labels."""
    with as_input_error(ValueError, f"{name} is not a CIFAR-10 batch: ", "; download it again"):
        rows, labels = read(content)
    if rows.dtype != np.uint8 or rows.shape != (IMAGES_PER_FILE, _RECORD - 1):
        raise InputError(f"{name} holds {rows.dtype} {rows.shape}; expected {IMAGES_PER_FILE} images of 3072 bytes")
    if labels.shape != (IMAGES_PER_FILE,) or not np.all((labels >= 0) & (labels < len(CLASSES))):
        raise InputError(f"{name} holds labels {labels.shape}; expected {IMAGES_PER_FILE} numbers from 0 to 9")
    # A row holds the red plane, then green, then blue.
    images = np.ascontiguousarray(rows.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1))
    return images, labels.astype(np.int64)


def _read_binary(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Parse records of one label byte and 3,072 pixel bytes."""
    if len(content) != IMAGES_PER_FILE * _RECORD:
        raise InputError(f"it has {len(content)} bytes; expected {IMAGES_PER_FILE * _RECORD}")
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    return records[:, 1:], records[:, 0]


def _read_python(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Parse a pickled dictionary with `data`, the pixel rows, and `labels`."""
    batch = read_pickled(content)
    if not isinstance(batch, dict) or not {b"data", b"labels"} <= batch.keys():
        raise InputError("it is not a dictionary with data and labels")
    rows, labels = batch[b"data"], batch[b"labels"]
    if isinstance(labels, list) and all(type(label) is int for label in labels):
        labels = np.array(labels)
    if not isinstance(rows, np.ndarray) or not isinstance(labels, np.ndarray):
        raise InputError("its data is not an array, or its labels are not integers")
    return rows, labels
