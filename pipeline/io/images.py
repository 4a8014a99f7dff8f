"""Find image files, and read them completely or refuse them.

A file in a folder or its subfolders is an image if its extension or its first bytes say so. An image that isn't a sound
JPEG or PNG is an error. Links are followed. Hidden files, and the leftovers of other systems, are skipped. Other files
are counted.
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
# Leftovers of macOS, Windows and network storage; names that begin with a dot are skipped anyway.
_FOREIGN = {
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin",
    "system volume information", "lost+found",
}  # fmt: skip


def read_image(path: str | PathLike, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Read a JPEG or PNG file as uint8 (height, width, 3), BGR; grayscale becomes three equal channels.

    Args:
        path: the file.
        shape: the required (height, width); None for any size up to `MAX_IMAGE_PIXELS`.

    Raises:
        InputError: the file can't be read, is not JPEG or PNG, is too large or truncated, or has another size, all of
            which is checked before decoding; or it can't be decoded.
    """
    try:
        content = read_regular(path, MAX_BYTES)
    except OSError as error:
        raise InputError(f"can't read image {path}: {error.strerror}") from error
    try:
        return decode_image(content, shape)
    except ValueError as error:
        raise InputError(f"image {path} {error}; remove or replace it") from error


def decode_image(content: bytes, shape: tuple[int, int] | None = None, *, oriented: bool = True) -> np.ndarray:
    """Decode the JPEG or PNG file `content`; see `read_image`.

    Args:
        oriented: rotate the image as its EXIF orientation says; if False, ignore it.

    Raises:
        ValueError: it isn't a complete image of the required size; the message follows the name of the image.
    """
    header = read_header(content)
    size = f"{header.width}x{header.height}"
    if shape is not None and {header.height, header.width} != set(shape):
        raise ValueError(f"is {size} pixels; expected {shape[1]}x{shape[0]}")
    if header.width * header.height > MAX_IMAGE_PIXELS:
        raise ValueError(f"has {size} pixels; expected at most {MAX_IMAGE_PIXELS:,}")
    flags = cv2.IMREAD_COLOR | (0 if oriented else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        pixels = cv2.imdecode(np.frombuffer(header.essential, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f"can't be decoded: {error.err:.100}") from error
    if pixels is None:
        raise ValueError("can't be decoded")
    if shape is not None and pixels.shape[:2] != shape:  # rotated by its EXIF orientation
        raise ValueError(f"is {pixels.shape[1]}x{pixels.shape[0]} pixels; expected {shape[1]}x{shape[0]}")
    return pixels


class StrictDecoder:
    """Read images, and treat the decoder's warnings as errors: it fills damaged parts with made-up pixels.

    The C libraries in OpenCV print warnings to stderr, so this redirects the process's stderr to a file. Use it only in
    processes that do nothing else.
    """

    def __init__(self) -> None:
        sys.stderr = os.fdopen(os.dup(2), "w")
        with tempfile.TemporaryFile() as warnings:
            os.dup2(warnings.fileno(), 2)

    def read(self, path: str | PathLike, shape: tuple[int, int] | None = None) -> np.ndarray:
        """Read as `read_image` does; raise `InputError` also if the decoder warns."""
        try:
            pixels = read_image(path, shape)
        finally:
            warning = self.take_warning()
        if warning:
            raise InputError(f"image {path} is damaged: {warning}; replace it")
        return pixels

    def take_warning(self) -> str:
        """Return what the decoder warned about since the last call, and forget it; empty for nothing."""
        if not os.fstat(2).st_size:
            return ""
        text = os.pread(2, 200, 0).decode(errors="replace").partition("\n")[0]
        os.ftruncate(2, 0)
        os.lseek(2, 0, os.SEEK_SET)
        return text


@dataclass(frozen=True)
class Listing:
    """A classification of files, sorted by path.

    `images` are the JPEG and PNG files, `unreadable` maps other images to an error message, `others` aren't images.
    """

    images: list[str]
    unreadable: dict[str, str]
    others: list[str]


def list_files(paths: Iterable[str]) -> Listing:
    """Classify the files at `paths`."""
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
            wrong = f"is {kind or 'an unknown format'}, not JPEG or PNG"
        if mark.startswith((JPEG, PNG)):
            listing.images.append(path)
        elif suffix in _ALL_SUFFIXES or kind:
            listing.unreadable[path] = f"image {path} {wrong}; convert or remove it"
        else:
            listing.others.append(path)
    return listing


def list_folder(folder: Path) -> Listing:
    """Classify the files in `folder` and its subfolders, except foreign ones.

    Raises:
        InputError: a folder is missing or can't be listed.
    """
    if not folder.is_dir():
        raise InputError(f"folder {folder} is missing")
    return list_files(_files(str(folder)))


def list_images(*folders: Path) -> list[list[str]]:
    """List the image files in each of `folders` and its subfolders, sorted; log the number of other files.

    Raises:
        InputError: a folder is missing, or holds no image, an image other than JPEG or PNG, or one whose name isn't
            printable.
    """
    listings = [list_folder(folder) for folder in folders]
    if unreadable := [text for listing in listings for text in listing.unreadable.values()]:
        raise InputError(first_of(unreadable))
    for folder, listing in zip(folders, listings, strict=True):
        if not listing.images:
            raise InputError(f"folder {folder} holds no images")
        for path in listing.images:
            if not path[len(str(folder)) :].isprintable():
                raise InputError(f"{folder} holds {path[len(str(folder)) :]!a}, whose name isn't printable; rename it")
        if listing.others:
            others = f"{len(listing.others):,}, such as {listing.others[0]}"
            logging.getLogger(__name__).info(f"skipped files in {folder} that are not images: {others}")
    return [listing.images for listing in listings]


def first_of(messages: Sequence[str]) -> str:
    """Return the first of the `messages` about unreadable images, and the number of others."""
    more = len(messages) - 1
    return messages[0] + (f" ({more:,} more image{'s' * (more > 1)} can't be read)" if more else "")


def is_foreign(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or a leftover of another system."""
    return name.startswith(".") or name.lower() in _FOREIGN


def _files(folder: str) -> Iterator[str]:
    """Yield the paths of all files in `folder` and its subfolders, except foreign ones."""
    pending: list[tuple[str, frozenset]] = [(folder, frozenset())]
    while pending:
        path, above = pending.pop()
        try:
            status = os.stat(path)
            here = status.st_dev, status.st_ino
            if here in above:  # a link to a parent folder
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
    """Read the first bytes of the file `path`, which identify its format."""
    descriptor = open_regular(path)
    try:
        return os.read(descriptor, MARK_BYTES)
    finally:
        os.close(descriptor)
