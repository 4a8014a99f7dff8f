"""Find and list ImageNet's images as distributed.

ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar       the official archives; the first holds an archive for each class
train/<WordNet id>/, val/<WordNet id>/ or val/         folders
ILSVRC/Data/CLS-LOC/train/<WordNet id>/, .../val/      Kaggle's folders

Archives are read in place. A split's images are ordered by WordNet id and file name, wherever they lie.
"""

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pipeline.data.imagenet.images import ImageFiles, Split
from pipeline.data.imagenet.labels import label_file, read_labels
from pipeline.data.textfiles import is_name, nfc
from pipeline.errors import InputError, as_input_error
from pipeline.files.hdf5 import MAX_TEXT
from pipeline.files.regular import open_regular
from pipeline.io.archives import TarMember, tar_members
from pipeline.io.images import MAX_BYTES, first_of, is_foreign, list_files, list_folder
from pipeline.utils.progress import Progress

_log = logging.getLogger(__name__)

_MAX_CLASSES = 1 << 16
_MAX_MEMBERS = 1 << 21  # in one archive
_BLOCK = 1 << 20


def locate(paths: SimpleNamespace) -> tuple[Path, Path]:
    """Return the folder or archive of the training images, and that of the validation images.

    Args:
        paths: `root`; the places where each split may lie, in the order of preference: `train_tar`, `val_tar`, and
            `train_folders`, `val_folders`; the files with labels of validation images (see `read_labels`).

    Raises:
        InputError: one is missing, or a file with labels is.
    """
    train, val = (
        _existing(paths.root, name, getattr(paths, f"{split}_tar"), getattr(paths, f"{split}_folders"))
        for split, name in {"train": "training", "val": "validation"}.items()
    )
    if not val.is_dir() or not _subfolders(val)[0]:
        label_file(paths)
    return train, val


def check_md5(expected: dict[Path, str], progress: Progress) -> None:
    """Compare the archives that exist among the `expected` with their MD5 digests.

    Raises:
        InputError: a digest differs, or there is no such archive.
        OSError: the disk fails.
    """
    archives = {path: md5 for path, md5 in expected.items() if path.exists()}
    if not archives:
        raise InputError(f"there is no archive to check; expected {' or '.join(map(str, expected))}")
    for path, md5 in archives.items():
        digest = hashlib.md5(usedforsecurity=False)
        with _opened(path) as (descriptor, size), progress(f"MD5 of {path.stem}", size / 1e6, "MB") as advance:
            while block := os.read(descriptor, _BLOCK):
                digest.update(block)
                advance(len(block) / 1e6)
        if digest.hexdigest() != md5:
            raise InputError(f"{path} has the MD5 digest {digest.hexdigest()}; expected {md5}; download it again")
        _log.info(f"{path}: MD5 digest as expected")


def find(paths: SimpleNamespace, train_source: Path, val_source: Path, progress: Progress) -> tuple[Split, Split]:
    """List the training and validation images in the places that `locate` returned.

    Raises:
        InputError: images are missing, an archive is cut short or holds something else, or labels are missing or wrong.
    """
    by_class = _list_classes(train_source, progress)
    wordnet_ids = tuple(sorted(by_class))
    if not 2 <= len(wordnet_ids) <= _MAX_CLASSES:
        raise InputError(f"{train_source} holds {len(wordnet_ids):,} class; expected 2 to {_MAX_CLASSES:,}")
    train = Split("train", wordnet_ids, [by_class[wordnet_id] for wordnet_id in wordnet_ids])
    _log.info(f"train: {len(train):,} images of {len(wordnet_ids):,} classes in {train_source}")
    val = Split("val", wordnet_ids, _list_val(val_source, paths, wordnet_ids, progress))
    empty = [wordnet_id for wordnet_id, files in zip(wordnet_ids, val.files, strict=True) if not len(files)]
    without = f", none of {len(empty):,} others such as {empty[0]}," if empty else ""
    _log.info(f"val: {len(val):,} images of {len(wordnet_ids) - len(empty):,} classes{without} in {val_source}")
    return train, val


def _existing(root: Path, name: str, archive: Path, folders: Iterable[Path]) -> Path:
    """Return the place of a split's images."""
    if not root.is_dir():
        raise InputError(f"folder {root} is missing; name the folder of ImageNet with `data`")
    places = [archive, *folders]
    for place in places:
        if place.exists():
            return place
    expected = " or ".join(str(place.relative_to(root)) for place in places)
    raise InputError(f"folder {root} has no {name} images; expected {expected} in it; name another folder with `data`")


def _list_classes(source: Path, progress: Progress) -> dict[str, ImageFiles]:
    """List the training images of each class."""
    if not source.is_dir():
        return _list_class_archives(source, progress)
    if by_class := _list_class_folders(source, progress):
        return by_class
    _, others = _subfolders(source)
    archives = [path for path in others if path.endswith(".tar")]
    hint = f"; unpack archives such as {archives[0]} into folders of their names" if archives else ""
    raise InputError(f"folder {source} holds no class's folder; expected {source}/<WordNet id>/{hint}")


def _list_val(
    source: Path, paths: SimpleNamespace, wordnet_ids: tuple[str, ...], progress: Progress
) -> list[ImageFiles]:
    """List the validation images of each class in the order of `wordnet_ids`."""
    if source.is_dir():
        if by_class := _list_class_folders(source, progress):
            if unknown := sorted(by_class.keys() - set(wordnet_ids)):
                raise InputError(f"folder {source} has the class {unknown[0]!a:.100}, which has no training images")
            nothing = next(iter(by_class.values()))[:0]
            return [by_class.get(wordnet_id, nothing) for wordnet_id in wordnet_ids]
        files = _list_folder_files(source, others := [])
        _report_others(source, others)
    else:
        with _opened(source) as (descriptor, size):
            files = _list_archive(source, descriptor, 0, size, source.name)
    if not len(files):
        raise InputError(f"{source} holds no images")
    label_of = {wordnet_id: label for label, wordnet_id in enumerate(wordnet_ids)}
    ids = read_labels(paths, list(files.stored_names()), wordnet_ids)
    labels = np.array([label_of[wordnet_id] for wordnet_id in ids])
    return [files[np.flatnonzero(labels == label)] for label in range(len(wordnet_ids))]


def _subfolders(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the subfolders of `folder`, and the paths of its other files, both sorted."""
    with as_input_error(OSError, f"can't list folder {folder}: "), os.scandir(folder) as entries:
        found = sorted((entry for entry in entries if not is_foreign(entry.name)), key=lambda entry: entry.name)
        folders = [entry.name for entry in found if entry.is_dir()]
    others = [entry.path for entry in found if entry.name not in set(folders)]
    if broken := [path for path in others if not os.path.exists(path)]:
        raise InputError(f"{broken[0]} is a link that leads nowhere; remove or repair it")
    return folders, others


def _list_class_folders(folder: Path, progress: Progress) -> dict[str, ImageFiles]:
    """List the images of each class: of each subfolder of `folder`. Empty if it has none."""
    folders, beside = _subfolders(folder)
    if not folders:
        return {}
    listing = list_files(beside)
    if stray := [*listing.images, *listing.unreadable]:
        raise InputError(f"image {stray[0]} is not in a class's folder; expected {folder}/<WordNet id>/")
    by_class: dict[str, ImageFiles] = {}
    others = listing.others
    with progress(f"listing {folder.name}", len(folders), "classes") as advance:
        for name in folders:
            _add(by_class, folder, name, _list_folder_files(folder / name, others))
            advance(1)
    _report_others(folder, others)
    return by_class


def _list_folder_files(folder: Path, others: list[str]) -> ImageFiles:
    """List the images in `folder` and its subfolders; append other files to `others`."""
    listing = list_folder(folder)
    if listing.unreadable:
        raise InputError(first_of(list(listing.unreadable.values())))
    others += listing.others
    start, files = len(str(folder)) + 1, []
    for path in listing.images:
        with as_input_error(OSError, f"can't read image {path}: "):
            files.append(TarMember(path[start:], 0, os.stat(path).st_size))
        _check(str(folder), files[-1])
    return _in_order(str(folder), files, in_archive=False)


def _report_others(folder: Path, others: list[str]) -> None:
    if others:
        _log.info(f"skipped files in {folder} that are not images: {len(others):,}, such as {others[0]}")


def _list_class_archives(path: Path, progress: Progress) -> dict[str, ImageFiles]:
    """List the images of each class: of each archive in the archive `path`."""
    by_class: dict[str, ImageFiles] = {}
    with _opened(path) as (descriptor, size), progress(f"listing {path.stem}", size / 1e6, "MB") as advance:
        for member in _members(path, descriptor, 0, size, path.name):
            wordnet_id = member.name.removesuffix(".tar")
            if wordnet_id == member.name:
                raise InputError(f"{path} holds {member.name!a:.200}; expected archives <WordNet id>.tar")
            end = member.offset + member.size
            _add(by_class, path, wordnet_id, _list_archive(path, descriptor, member.offset, end, member.name))
            advance(member.size / 1e6)
    return by_class


def _list_archive(path: Path, descriptor: int, start: int, end: int, name: str) -> ImageFiles:
    """List the images in the archive `name`, which is bytes `start` to `end` of the file `path`."""
    files = []
    for member in _members(path, descriptor, start, end, name):
        _check(str(path), member)
        files.append(member)
        if len(files) > _MAX_MEMBERS:
            raise InputError(f"{path} holds more than {_MAX_MEMBERS:,} files in one archive")
    return _in_order(str(path), files, in_archive=True)


def _members(path: Path, descriptor: int, start: int, end: int, name: str) -> Iterator[TarMember]:
    """Yield the files of an archive, without leading "./"; other systems' leftovers are skipped."""
    what = str(path) if name == path.name else f"{path}: {name!a:.200}"
    try:
        for member in tar_members(descriptor, start, end):
            file = member.name.removeprefix("./")
            if "/" in file:
                raise InputError(f"{what} holds {member.name!a:.200}; expected files without folders")
            if not is_foreign(file):
                yield TarMember(file, member.offset, member.size)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{what} {error}; download it again") from error
    except OSError as error:
        raise OSError(f"can't read {path}: {error.strerror or error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, int]]:
    """Open the archive `path`; yield its descriptor and size."""
    with as_input_error(OSError, f"can't read {path}: "):
        descriptor = open_regular(path)
    try:
        yield descriptor, os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _check(source: str, file: TarMember) -> None:
    """Raise `InputError` if name or size of a `file` in `source` can't be those of an image."""
    name = nfc(file.name)
    if not name or not name.isprintable() or len(name.encode()) > MAX_TEXT:
        raise InputError(f"{source} holds {file.name!a:.200}, whose name isn't printable or is too long; rename it")
    if not 1 <= file.size <= MAX_BYTES:
        expected = f"expected 1 to {MAX_BYTES:,}; remove or replace it"
        raise InputError(f"{source} holds {file.name!a:.200} of {file.size:,} bytes; {expected}")


def _in_order(source: str, files: list[TarMember], *, in_archive: bool) -> ImageFiles:
    """Sort the files of `source` by name."""
    files = sorted(files, key=lambda file: nfc(file.name))
    for one, other in pairwise(files):
        if nfc(one.name) == nfc(other.name):
            raise InputError(f"{source} holds {one.name!a:.200} twice")
    names = np.array([file.name.encode() for file in files], object)
    offsets = np.array([file.offset for file in files], np.int64) if in_archive else None
    return ImageFiles(source, names, offsets, np.array([file.size for file in files], np.int64))


def _add(by_class: dict[str, ImageFiles], place: Path, name: str, files: ImageFiles) -> None:
    """Add the `files` of the class `name`, found in `place`."""
    wordnet_id = nfc(name)
    if not is_name(wordnet_id) or len(wordnet_id.encode()) > MAX_TEXT:
        raise InputError(f"{place} holds {name!a:.200}; expected a WordNet id, such as n01440764")
    if wordnet_id in by_class:
        raise InputError(f"{place} holds the class {wordnet_id!a:.100} twice, in two Unicode forms; rename one")
    if not len(files):
        raise InputError(f"{place}: class {wordnet_id!a:.100} has no images")
    by_class[wordnet_id] = files
