"""HDF5 files that say in front, before any HDF5 code touches them, what a whole one is.

    bytes 0-15    magic, which names the kind of file
    bytes 16-23   length of all that follows the block, as every number here unsigned and little-endian
    bytes 24-55   SHA-256 of that
    bytes 56-71   two numbers, whose meaning is the kind's own
    bytes 72-103  a mark, whose meaning is the kind's own too; zeros in files from before there was one
    to byte 511   zeros

HDF5 leaves such a block, its user block, to the user, and finds what is its own behind it.
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

from pipeline.errors import InputError, refusing
from pipeline.files.regular import open_regular

BLOCK = 512
_SEAL = struct.Struct("<16sQ32sQQ32s")
_READ = 1 << 20


@dataclass(frozen=True)
class Seal:
    """The block of one file."""

    magic: bytes
    length: int
    digest: bytes
    numbers: tuple[int, int] = (0, 0)
    mark: bytes = bytes(32)

    def pack(self) -> bytes:
        """The block, `BLOCK` bytes."""
        return _SEAL.pack(self.magic, self.length, self.digest, *self.numbers, self.mark).ljust(BLOCK, b"\0")


@dataclass(frozen=True)
class Kind:
    """A kind of file: the magic it begins with, what it is called, and what to do about a broken one."""

    magic: bytes
    name: str
    advice: str

    def damaged(self, path: Path, how: str) -> InputError:
        return InputError(f"{self.name} {path} is damaged: {how}; {self.advice}")


def read_seal(path: Path, kind: Kind) -> Seal | None:
    """What the block of the file `path` says, unchecked; None if it is no file of this kind."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return _unpack(file.read(BLOCK), kind)
    except OSError:
        return None


@contextmanager
def open_sealed(path: Path, kind: Kind, *, spare: bool = False) -> Iterator[tuple[h5py.File, BinaryIO, Seal]]:
    """The HDF5 file at `path`, once it is seen to be whole, and the same as a plain file, to read from elsewhere.

    Args:
        spare: leave out of the digest the bytes that the two numbers name: place in the file, and how many.

    Raises:
        InputError: there is no such file, or it is of another kind or damaged; also for whatever the HDF5 library makes
            of its content while the file is open.
    """
    with refusing(OSError, f"can't read {kind.name} {path}: "):
        descriptor = open_regular(path)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        seal = _unpack(file.read(BLOCK), kind)
        if seal is None:
            raise InputError(f"{path} is not a {kind.name} of this project; expected a file that it wrote")
        length = os.fstat(descriptor).st_size - BLOCK
        if length != seal.length:
            raise kind.damaged(path, f"{length:,} bytes of {seal.length:,}")
        place, size = seal.numbers if spare else (BLOCK, 0)
        if not BLOCK <= place <= place + size <= BLOCK + length:
            raise kind.damaged(path, "its first bytes name a place outside of it")
        try:
            digest = digest_of(file, place, size)
        except OSError as error:
            raise OSError(f"can't read {kind.name} {path}: {error.strerror or error}") from error
        if seal.digest != digest:
            raise kind.damaged(path, "its digest differs")
        try:
            with h5py.File(file, "r") as content:
                yield content, file, seal
        except InputError:
            raise
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise kind.damaged(path, f"{error!s:.200}".partition("\n")[0] or type(error).__name__) from error


def digest_of(file: BinaryIO, spare_from: int = BLOCK, spared: int = 0) -> bytes:
    """SHA-256 of all of a file behind its block but for the `spared` bytes from `spare_from` on."""
    digest = hashlib.sha256()
    for start, end in ((BLOCK, spare_from), (spare_from + spared, os.fstat(file.fileno()).st_size)):
        for block in blocks(file.fileno(), start, end):
            digest.update(block)
    return digest.digest()


def blocks(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """The bytes of a file from `start` to before `end`, a part at a time; fewer where it has been cut short."""
    while start < end and (block := os.pread(descriptor, min(_READ, end - start), start)):
        yield block
        start += len(block)


def _unpack(block: bytes, kind: Kind) -> Seal | None:
    if len(block) < BLOCK or not block.startswith(kind.magic):
        return None
    _, length, digest, *numbers, mark = _SEAL.unpack_from(block)
    seal = Seal(kind.magic, length, digest, tuple(numbers), mark)
    return seal if seal.pack() == block else None
