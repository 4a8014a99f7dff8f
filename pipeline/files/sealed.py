"""HDF5 files with a seal: a block in front with the length and digest of the rest, checked before HDF5 code runs.

    bytes 0-15    magic, which identifies the file format
    bytes 16-23   length of everything after the block; all numbers are unsigned and little-endian
    bytes 24-55   SHA-256 of everything after the block
    bytes 56-71   two numbers, whose meaning depends on the format
    bytes 72-103  a mark, whose meaning depends on the format; zeros in older files
    bytes 104-511 zeros

HDF5 calls this the user block; HDF5's own data follows it.
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import h5py

from pipeline.errors import InputError, as_input_error
from pipeline.files.regular import open_regular

BLOCK = 512
_SEAL = struct.Struct("<16sQ32sQQ32s")
_READ = 1 << 20


@dataclass(frozen=True)
class Seal:
    """The seal of one file."""

    magic: bytes
    length: int
    digest: bytes
    numbers: tuple[int, int] = (0, 0)
    mark: bytes = bytes(32)

    def pack(self) -> bytes:
        """Return the seal as `BLOCK` bytes."""
        return _SEAL.pack(self.magic, self.length, self.digest, *self.numbers, self.mark).ljust(BLOCK, b"\0")


@dataclass(frozen=True)
class FileFormat:
    """A sealed file format: its magic, its name in messages, and the remedy for a damaged file."""

    magic: bytes
    name: str
    remedy: str

    def damaged(self, path: Path, how: str) -> InputError:
        return InputError(f"{self.name} {path} is damaged: {how}; {self.remedy}")


def read_seal(path: Path, file_format: FileFormat) -> Seal | None:
    """Read the seal of the file `path` without checking the digest; return None if it has another format."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return _unpack(file.read(BLOCK), file_format)
    except OSError:
        return None


@contextmanager
def open_sealed(
    path: Path, file_format: FileFormat, *, skip_numbered: bool = False
) -> Iterator[tuple[h5py.File, BinaryIO, Seal]]:
    """Check the digest of the file `path`; yield it as an HDF5 file and as a plain file, and its seal.

    Args:
        skip_numbered: omit from the digest the block that the seal's two numbers give as offset and size.

    Raises:
        InputError: the file is missing, damaged, or of another format, or HDF5 fails inside the context.
        OSError: the disk fails while the digest is computed.
    """
    with as_input_error(OSError, f"can't read {file_format.name} {path}: ", "; name another file"):
        descriptor = open_regular(path)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        seal = _unpack(file.read(BLOCK), file_format)
        if seal is None:
            raise InputError(f"{path} is not a {file_format.name} of this project; name another file")
        length = os.fstat(descriptor).st_size - BLOCK
        if length != seal.length:
            raise file_format.damaged(path, f"it has {length:,} bytes; expected {seal.length:,}")
        offset, size = seal.numbers if skip_numbered else (BLOCK, 0)
        if not BLOCK <= offset <= offset + size <= BLOCK + length:
            raise file_format.damaged(path, f"its seal names {size:,} bytes at {offset:,}, outside of the file")
        try:
            digest = digest_of(file, offset, size)
        except OSError as error:
            raise OSError(f"can't read {file_format.name} {path}: {error.strerror or error}") from error
        if seal.digest != digest:
            raise file_format.damaged(path, "its SHA-256 digest differs")
        try:
            with h5py.File(file, "r") as content:
                yield content, file, seal
        except InputError:
            raise
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise file_format.damaged(path, f"{error!s:.200}".partition("\n")[0] or type(error).__name__) from error


def digest_of(file: BinaryIO, skip_from: int = BLOCK, skipped: int = 0) -> bytes:
    """Return the SHA-256 of a file after its seal, without the `skipped` bytes from offset `skip_from` on."""
    digest = hashlib.sha256()
    for start, end in ((BLOCK, skip_from), (skip_from + skipped, os.fstat(file.fileno()).st_size)):
        for block in blocks(file.fileno(), start, end):
            digest.update(block)
    return digest.digest()


def blocks(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """Yield the bytes of a file from `start` up to `end` in blocks; fewer if the file was truncated."""
    while start < end and (block := os.pread(descriptor, min(_READ, end - start), start)):
        yield block
        start += len(block)


def _unpack(block: bytes, file_format: FileFormat) -> Seal | None:
    if len(block) < BLOCK or not block.startswith(file_format.magic):
        return None
    _, length, digest, *numbers, mark = _SEAL.unpack_from(block)
    seal = Seal(file_format.magic, length, digest, tuple(numbers), mark)
    return seal if seal.pack() == block else None
