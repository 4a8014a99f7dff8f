"""Image files, found by one rule, and read whole or refused.

In a folder and below it, a file is an image if its name or its first bytes say so. One that isn't sound JPEG or PNG is
an error. Links are followed. What other programs leave behind, hidden or under one of a few names, is passed over, and
files that are no images are counted.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import cv2
import numpy as np
from imutils.paths import image_types

from pipeline import MAX_IMAGE_PIXELS
from pipeline.errors import InputError
from pipeline.files.imageheader import JPEG, MARK_BYTES, PNG, other_kind, read_header
from pipeline.files.regular import open_regular, read_regular

MAX_BYTES = 1 << 25

_SUFFIXES = {".jpg", ".jpeg", ".png"}
_ALL_SUFFIXES = {
    *image_types, ".apng", ".arw", ".avif", ".cr2", ".dib", ".dng", ".exr", ".gif", ".hdr", ".heic", ".heif", ".ico",
    ".j2k", ".jfif", ".jp2", ".jpe", ".jxl", ".mpo", ".nef", ".pbm", ".pgm", ".pjp", ".pjpeg", ".pnm", ".ppm", ".psd",
    ".raw", ".svg", ".tga", ".webp",
}  # fmt: skip
# What macOS, Windows and network storage leave in folders; names that begin with a dot are passed over anyway.
_FOREIGN = {
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin",
    "system volume information", "lost+found",
}  # fmt: skip


def read_image(path: str | PathLike, shape: tuple[int, int] | None = None) -> np.ndarray:
    """The pixels of a JPEG or PNG file, uint8 (height, width, 3), BGR; grayscale becomes three equal channels.

    Args:
        path: the file.
        shape: the (height, width) that the image must have, or None for any of at most `MAX_IMAGE_PIXELS`.

    Raises:
        InputError: the file can't be read, is neither JPEG nor PNG, is too large, is cut short, has another size, or
            doesn't decode. All but the last show before anything is decoded.
    """
    try:
        content = read_regular(path, MAX_BYTES)
    except OSError as error:
        raise InputError(f"can't read image {path}: {error.strerror}") from error
    try:
        header = read_header(content)
    except ValueError as error:
        raise InputError(f"image {path} {error}; remove or replace it") from error
    size = f"{header.width}x{header.height}"
    if shape is not None and {header.height, header.width} != set(shape):
        raise InputError(f"image {path} is {size} pixels; expected {shape[1]}x{shape[0]}")
    if header.width * header.height > MAX_IMAGE_PIXELS:
        raise InputError(f"image {path} has {size} pixels; expected at most {MAX_IMAGE_PIXELS:,}")
    try:
        pixels = cv2.imdecode(np.frombuffer(header.essential, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise InputError(f"image {path} doesn't decode: {error.err:.100}; replace it") from error
    if pixels is None:
        raise InputError(f"image {path} doesn't decode; replace it")
    if shape is not None and pixels.shape[:2] != shape:  # turned, as its EXIF data ask for
        raise InputError(f"image {path} is {pixels.shape[1]}x{pixels.shape[0]} pixels; expected {shape[1]}x{shape[0]}")
    return pixels


class StrictDecoder:
    """Reads images one at a time, and takes the decoder's complaints for errors: it fills in what is missing inside.

    The C libraries behind OpenCV print their complaints. This turns the process's standard error, below Python, to a
    file to find them in: for processes that do nothing else.
    """

    def __init__(self) -> None:
        sys.stderr = os.fdopen(os.dup(2), "w")
        with tempfile.TemporaryFile() as complaints:
            os.dup2(complaints.fileno(), 2)

    def read(self, path: str | PathLike, shape: tuple[int, int] | None = None) -> np.ndarray:
        """What `read_image` returns; `InputError` also where the decoder has complained."""
        try:
            pixels = read_image(path, shape)
        finally:
            complaint = self._take_complaint()
        if complaint:
            raise InputError(f"image {path} is damaged: {complaint}; replace it")
        return pixels

    def _take_complaint(self) -> str:
        if not os.fstat(2).st_size:
            return ""
        text = os.pread(2, 200, 0).decode(errors="replace").partition("\n")[0]
        os.ftruncate(2, 0)
        os.lseek(2, 0, os.SEEK_SET)
        return text


@dataclass(frozen=True)
class Listing:
    """What some files are, by their paths, each part in the order of these.

    `images` are to be read as JPEG or PNG; `unreadable` says of each other image what it is; `others` are no images.
    """

    images: list[str]
    unreadable: dict[str, str]
    others: list[str]


def list_files(paths: Iterable[str]) -> Listing:
    """What the files at `paths` are."""
    listing = Listing([], {}, [])
    for path in sorted(paths):
        suffix = os.path.splitext(path)[1].lower()
        if suffix in _SUFFIXES:
            listing.images.append(path)
            continue
        kind = None
        try:
            mark = _mark(path)
        except OSError as error:
            mark, wrong = b"", f"can't be read: {error.strerror}"
        else:
            kind = other_kind(mark)
            wrong = f"is neither JPEG nor PNG{f' but {kind}' if kind else ''}"
        if mark.startswith((JPEG, PNG)):
            listing.images.append(path)
        elif suffix in _ALL_SUFFIXES or kind:
            listing.unreadable[path] = f"image {path} {wrong}; convert or remove it"
        else:
            listing.others.append(path)
    return listing


def list_folder(folder: Path) -> Listing:
    """What the files in `folder` and below are, save foreign ones.

    Raises:
        InputError: the folder, or one below, is missing or can't be listed.
    """
    if not folder.is_dir():
        raise InputError(f"folder {folder} is missing")
    return list_files(_files(str(folder)))


def list_images(*folders: Path) -> list[list[str]]:
    """Paths of the image files in each of `folders` and below, in their order; other files are counted in a report.

    Raises:
        InputError: a folder is missing, holds no image, or one that is neither JPEG nor PNG or has a name that can't be
            printed.
    """
    listings = [list_folder(folder) for folder in folders]
    if unreadable := [text for listing in listings for text in listing.unreadable.values()]:
        raise InputError(first_of(unreadable))
    for folder, listing in zip(folders, listings, strict=True):
        if not listing.images:
            raise InputError(f"folder {folder} holds no image")
        for path in listing.images:
            if not path[len(str(folder)) :].isprintable():
                raise InputError(f"{folder} holds {path[len(str(folder)) :]!a}, whose name can't be printed; rename it")
        if listing.others:
            others = f"{len(listing.others):,}, as {listing.others[0]}"
            logging.getLogger(__name__).info(f"files in {folder} that are no images: {others}; passed over")
    return [listing.images for listing in listings]


def first_of(unreadable: Sequence[str]) -> str:
    """What to say of images that can't be read, given what is wrong with each."""
    more = len(unreadable) - 1
    return unreadable[0] + (f" ({more:,} more image{'s' * (more > 1)} can't be read either)" if more else "")


def is_foreign(name: str) -> bool:
    """Whether a file or folder of this name is another program's, and no part of a data set."""
    return name.startswith(".") or name.lower() in _FOREIGN


def _files(folder: str) -> Iterator[str]:
    """Paths of all files in `folder` and below, save foreign ones."""
    pending: list[tuple[str, frozenset]] = [(folder, frozenset())]
    while pending:
        path, above = pending.pop()
        try:
            status = os.stat(path)
            here = status.st_dev, status.st_ino
            if here in above:  # by a link to a folder that it lies in
                continue
            with os.scandir(path) as entries:
                found = [entry for entry in entries if not is_foreign(entry.name)]
        except OSError as error:
            raise InputError(f"can't list folder {path}: {error.strerror}") from error
        for entry in found:
            if _is_folder(entry):
                pending.append((entry.path, above | {here}))
            else:
                yield entry.path


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _mark(path: str) -> bytes:
    """The first bytes of the file at `path`, which tell its kind."""
    descriptor = open_regular(path)
    try:
        return os.read(descriptor, MARK_BYTES)
    finally:
        os.close(descriptor)
