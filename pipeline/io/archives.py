"""Published archives: fetched, checked against a digest, and read or unpacked by the names that are expected."""

import gzip
import hashlib
import http.client
import re
import shutil
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import InputError
from pipeline.files.regular import open_regular

_BLOCK = 1 << 20
_SECONDS = 30  # without a byte, until a connection counts as dead
# No file of an image data set's archive comes near these.
_MAX_MEMBER = 64 << 20
_MAX_WHOLE = 4 << 30
_MAX_MEMBERS = 1_000_000
# In a tar file: plain files, and headers that say more of the file behind them, with their bytes at most.
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)
_BESIDE = (tarfile.XHDTYPE, tarfile.XGLTYPE)
_MAX_BESIDE = 1 << 16
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def download(url: str, path: Path, *, size: int, md5: str, advance: Callable[[int], None]) -> None:
    """Fetch `url` into the file `path`, calling `advance` with the bytes of each block.

    Raises:
        InputError: there is no connection, or what comes has another size or digest.
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
        raise InputError(f"{url} sent {received:,} bytes that are not the expected {size:,}, MD5 {md5}; try again")


def _blocks(url: str) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as response:  # noqa: S310  (the project's own URL)
            while block := response.read(_BLOCK):
                yield block
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise InputError(f"can't download {url}: {error or type(error).__name__}") from error


def unpack(archive: Path, folder: Path, expected: re.Pattern) -> None:
    """Unpack the members of a zip `archive` whose names `expected` matches in full into `folder`.

    Raises:
        InputError: the archive is damaged, or holds anything else than folders and such members.
    """
    try:
        with zipfile.ZipFile(archive) as members:
            infos = [info for info in members.infolist() if not info.is_dir()]
            if len(infos) > _MAX_MEMBERS or sum(info.file_size for info in infos) > _MAX_WHOLE:
                raise InputError(f"{archive} holds {len(infos):,} files; expected a data set of images")
            for info in infos:
                if not expected.fullmatch(info.filename) or info.file_size > _MAX_MEMBER:
                    raise InputError(f"{archive} holds {info.filename!a}, which the data set does not; not unpacked")
                if info.compress_type not in _COMPRESSIONS or info.flag_bits & 1:
                    raise InputError(f"{archive} holds {info.filename!a} packed in a way that the data set is not")
                target = folder / info.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with members.open(info) as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file, _BLOCK)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{archive} is no whole zip archive: {error}") from error


def read_tar(path: Path, expected: Mapping[str, int], max_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file in the archive `path`, a tar file or a gzipped one, as they come.

    Headers that only say more of a file, as some programs write, are passed over: no file that is expected needs them.
    `tarfile` obeys them, as in which bytes of a file are there at all, and copies global ones to each member, of which
    it keeps every one: a small archive can make it take any memory.

    Args:
        expected: the names that files in it may have, each with the bytes that it has at most.
        max_bytes: of the unpacked archive.

    Raises:
        OSError: it can't be read, is damaged, or unpacks to more.
        InputError: it holds anything else than folders and files that are expected, or one of them twice.
    """
    seen = set()
    with open(open_regular(path), "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        unpacked = _Capped(gzip.GzipFile(fileobj=file) if zipped else file, max_bytes)
        try:
            while (block := unpacked.read(tarfile.BLOCKSIZE)).strip(b"\0"):
                member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                if member.isdir() or member.type in _BESIDE:
                    name, largest = None, _MAX_BESIDE
                elif member.name in expected and member.name not in seen and member.type in _REGULAR:
                    name, largest = member.name, expected[member.name]
                else:
                    raise InputError(
                        f"{path} holds {member.name!a:.200}, which it should not, or not so; it is not read"
                    )
                if not 0 <= member.size <= largest:
                    raise InputError(
                        f"{path} holds {member.name!a:.200} of {member.size:,} bytes; expected at most {largest:,}"
                    )
                content = unpacked.read(-(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
                if len(content) < member.size:
                    raise OSError(f"{member.name!a:.200} is cut short")
                if name is not None:
                    seen.add(name)
                    yield name, content[: member.size]
            # To its end, where the digest of what was compressed stands.
            while unpacked.read(_BLOCK):
                pass
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise OSError(f"it doesn't unpack ({error!s:.100})") from error


class _Capped:
    """A file that is an error to read beyond so many bytes."""

    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        self._file, self._left = file, max_bytes

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise OSError("it unpacks to far more than it should")
        return content
