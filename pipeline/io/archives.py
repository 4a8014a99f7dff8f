"""Download, check, read and unpack published archives. Only expected members are read."""

import gzip
import hashlib
import http.client
import os
import re
import shutil
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import InputError
from pipeline.files.regular import open_regular

_BLOCK = 1 << 20
_TIMEOUT = 30  # seconds without a byte
# Limits far above those of an image data set's archive.
_MAX_MEMBER = 64 << 20
_MAX_UNPACKED = 4 << 30
_MAX_MEMBERS = 1_000_000
# Types of tar members: regular files, and pax headers, with the maximum size of those.
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)
_PAX_HEADERS = (tarfile.XHDTYPE, tarfile.XGLTYPE)
_MAX_PAX_HEADER = 1 << 16
# Maximum number of zeros at the end of a tar archive, in bytes; GNU tar writes up to 10,240.
_MAX_PADDING = 1 << 20
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def download(url: str, path: Path, *, size: int, md5: str, advance: Callable[[int], None]) -> None:
    """Download `url` to the file `path`; call `advance` with the number of bytes of each block.

    Raises:
        InputError: the download fails, or has another size or digest.
    """
    digest, received = hashlib.md5(usedforsecurity=False), 0
    with open(path, "wb") as file:
        for block in _blocks(url):
            file.write(block)
            digest.update(block)
            received += len(block)
            if received > size:
                break
            advance(len(block))
    if received != size or digest.hexdigest() != md5:
        raise InputError(f"{url} sent {received:,} bytes; expected {size:,} with the MD5 digest {md5}; try again")


def _blocks(url: str) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:  # noqa: S310  (the project's own URL)
            while block := response.read(_BLOCK):
                yield block
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise InputError(f"can't download {url}: {error or type(error).__name__}") from error


def unpack(archive: Path, folder: Path, expected: re.Pattern) -> None:
    """Unpack the members of a zip `archive` to `folder`.

    Raises:
        InputError: the archive is damaged, exceeds a limit, or holds a file whose full name doesn't match `expected`.
    """
    try:
        with zipfile.ZipFile(archive) as members:
            infos = [info for info in members.infolist() if not info.is_dir()]
            unpacked = sum(info.file_size for info in infos)
            if len(infos) > _MAX_MEMBERS or unpacked > _MAX_UNPACKED:
                raise InputError(
                    f"{archive} holds {len(infos):,} files of {unpacked:,} bytes; expected at most {_MAX_MEMBERS:,} "
                    f"of {_MAX_UNPACKED:,}"
                )
            for info in infos:
                if not expected.fullmatch(info.filename) or info.file_size > _MAX_MEMBER:
                    raise InputError(
                        f"{archive} holds {info.filename!a} of {info.file_size:,} bytes, which is not in the data set"
                    )
                if info.compress_type not in _COMPRESSIONS or info.flag_bits & 1:
                    raise InputError(f"{archive} holds {info.filename!a} with an unexpected compression or encryption")
                target = folder / info.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with members.open(info) as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file, _BLOCK)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{archive} is not a complete zip archive: {error}") from error


def read_tar(
    path: Path, expected: Mapping[str, int], max_bytes: int, *, skip_others: bool = False
) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file in the tar archive `path`, which may be gzipped.

    Unlike `tarfile`, this ignores pax headers: they can declare sparse files, and `tarfile` copies global ones to every
    member and keeps them all, so that a small archive can exhaust memory.

    Args:
        expected: names of the files to read, each with its maximum size in bytes.
        max_bytes: maximum size of the unpacked archive.
        skip_others: skip other regular files; if False, refuse them.

    Raises:
        OSError: the archive can't be read, is damaged, or exceeds `max_bytes`.
        InputError: it holds an unexpected file, or one of them twice.
    """
    seen = set()
    with open(open_regular(path), "rb") as file:
        is_gzipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        unpacked = _LimitedReader(gzip.GzipFile(fileobj=file) if is_gzipped else file, max_bytes)
        try:
            while (block := unpacked.read(tarfile.BLOCKSIZE)).strip(b"\0"):
                member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                if member.isdir():
                    continue  # folders have no content, whatever their size
                if member.type in _PAX_HEADERS:
                    name, largest = None, _MAX_PAX_HEADER
                elif member.name in expected and member.name not in seen and member.type in _REGULAR:
                    name, largest = member.name, expected[member.name]
                elif skip_others and member.name not in expected and member.type in _REGULAR:
                    name, largest = None, _MAX_MEMBER
                else:
                    raise InputError(
                        f"{path} holds {member.name!a:.200}, which is not expected, or repeated, or not a regular file"
                    )
                if not 0 <= member.size <= largest:
                    raise InputError(
                        f"{path} holds {member.name!a:.200} of {member.size:,} bytes; expected at most {largest:,}"
                    )
                content = unpacked.read(-(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
                if len(content) < member.size:
                    raise OSError(f"{member.name!a:.200} is truncated")
                if name is not None:
                    seen.add(name)
                    yield name, content[: member.size]
            # Read to the end, so that gzip checks its digest.
            while unpacked.read(_BLOCK):
                pass
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise OSError(f"it can't be unpacked ({error!s:.100})") from error


@dataclass(frozen=True)
class TarMember:
    """A regular file in an uncompressed tar archive: its name, and the place of its content in bytes."""

    name: str
    offset: int
    size: int


def tar_members(descriptor: int, start: int, end: int) -> Iterator[TarMember]:
    """Yield the regular files of the uncompressed tar archive that is bytes `start` to `end` of a file.

    Folders are skipped. Of extended headers, only a member's name is taken (pax, and GNU's for long names).

    Raises:
        ValueError: the archive is cut short or damaged, or has a member that is not a regular file, such as a link.
    """
    long_name = None
    while True:
        block = os.pread(descriptor, tarfile.BLOCKSIZE, start)
        if start + tarfile.BLOCKSIZE > end or len(block) < tarfile.BLOCKSIZE:
            raise ValueError("is cut short")
        if not block.strip(b"\0"):
            padding = os.pread(descriptor, min(_MAX_PADDING + 1, end - start), start)
            if len(padding) > _MAX_PADDING or padding.strip(b"\0"):
                raise ValueError("is damaged: there is more after its end")
            return
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.TarError as error:
            raise ValueError(f"is damaged, or not an uncompressed tar archive ({error!s:.100})") from error
        start += tarfile.BLOCKSIZE
        is_header = member.type in (*_PAX_HEADERS, tarfile.GNUTYPE_LONGNAME)
        if not 0 <= member.size <= (_MAX_PAX_HEADER if is_header else end - start):
            raise ValueError(
                "is cut short" if member.size > end - start else f"has a bad header for {member.name!a:.200}"
            )
        if is_header:
            content = os.pread(descriptor, member.size, start)
            if member.type == tarfile.GNUTYPE_LONGNAME:
                long_name = content.rstrip(b"\0").decode(errors="surrogateescape")
            elif member.type == tarfile.XHDTYPE:
                long_name = _pax_name(content) or long_name
        else:
            name, long_name = long_name or member.name, None
            if member.type in _REGULAR:
                yield TarMember(name, start, member.size)
            elif not member.isdir():
                raise ValueError(f"holds {name!a:.200}, which is not a regular file")
            else:
                continue  # folders have no content, whatever their size
        start += -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _pax_name(content: bytes) -> str | None:
    """Return the name that a pax header gives to the next member, if any; raise `ValueError` if it is sparse."""
    name = None
    while content:
        length, _, rest = content.partition(b" ")
        if not (length.isdigit() and len(length) < 6 and len(length) + 3 < int(length) <= len(content)):
            raise ValueError("has a damaged pax header")
        key, _, value = rest[: int(length) - len(length) - 2].partition(b"=")
        if key == b"path":
            name = value.decode(errors="surrogateescape")
        elif key == b"size" or key.startswith(b"GNU.sparse"):
            raise ValueError(f"has a pax header with {key.decode()!a}, which is not supported")
        content = content[int(length) :]
    return name


class _LimitedReader:
    """A file that raises `OSError` once more than `max_bytes` bytes are read."""

    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        self._file, self._left = file, max_bytes

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise OSError("it unpacks to more bytes than expected")
        return content
