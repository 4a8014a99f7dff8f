"""A published archive: fetched, checked against its digest, and unpacked by names that are expected."""

import hashlib
import http.client
import re
import shutil
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import InputError

_BLOCK = 1 << 20
_SECONDS = 30  # without a byte, until a connection counts as dead
# No file of an image data set's archive comes near these.
_LARGEST_MEMBER = 64 << 20
_MOST_MEMBERS = 1_000_000


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
        raise InputError(
            f"{url} sent {received:,} bytes that are not the expected {size:,}, MD5 {md5}; try again later"
        )


def _blocks(url: str) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as response:
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
            if len(infos) > _MOST_MEMBERS:
                raise InputError(f"{archive} holds {len(infos):,} files; expected a data set of images")
            for info in infos:
                if not expected.fullmatch(info.filename) or info.file_size > _LARGEST_MEMBER:
                    raise InputError(f"{archive} holds {info.filename!a}, which the data set does not; not unpacked")
                target = folder / info.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with members.open(info) as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file, _BLOCK)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{archive} is no whole zip archive: {error}") from error
