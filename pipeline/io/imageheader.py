"""What a JPEG or PNG file says of itself, marker by marker, before anything is decoded.

JPEG: ITU-T T.81, annex B. PNG: W3C Portable Network Graphics, third edition, chapter 5.
"""

import re
import struct
from dataclasses import dataclass

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"

# What no photograph has more of: scans of a progressive JPEG; bytes of text, profiles and the like in a PNG, which
# decoders unpack.
_MOST_SCANS = 64
_MOST_TEXT = 1 << 20

# A marker in the coded data of a scan: there 0xFF stands for itself before 0, and restart markers belong to it.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"})


@dataclass(frozen=True)
class Header:
    """The size of an image, in pixels."""

    width: int
    height: int


def read_header(content: bytes) -> Header:
    """The header of the JPEG or PNG file `content`, which is seen to go on to its end mark.

    Raises:
        ValueError: it is neither, is cut short or damaged, or has parts that are out of all proportion.
    """
    try:
        if content.startswith(JPEG):
            return _read_jpeg(content)
        if content.startswith(PNG):
            return _read_png(content)
    except (IndexError, struct.error) as error:
        raise ValueError("is cut short") from error
    raise ValueError("is neither JPEG nor PNG")


def _read_jpeg(content: bytes) -> Header:
    header, scans, place = None, 0, 2
    while True:
        found = _MARKER.search(content, place)
        if found is None:
            raise ValueError("is cut short")
        marker, place = content[found.start() + 1], found.end()
        if marker == _END_OF_IMAGE and scans:
            return header
        if marker in (0x01, 0xD8):
            continue  # markers without content
        (length,) = struct.unpack_from(">H", content, place)
        if marker in _START_OF_FRAME and header is None:
            height, width = struct.unpack_from(">HH", content, place + 3)
            header = Header(width, height)
        elif marker == _START_OF_SCAN:
            scans += 1
            if header is None or scans > _MOST_SCANS:
                raise ValueError("has scans without a frame" if header is None else "has too many scans")
        place += length


def _read_png(content: bytes) -> Header:
    width, height = struct.unpack_from(">II", content, len(PNG) + 8)
    place, text = len(PNG), 0
    while True:
        length, kind = struct.unpack_from(">I4s", content, place)
        place += 12 + length
        if place > len(content):
            raise ValueError("is cut short")
        if kind == b"IEND":
            return Header(width, height)
        if kind == b"acTL":
            raise ValueError("is an animation")
        if kind not in _PIXEL_CHUNKS:
            text += length
            if text > _MOST_TEXT:
                raise ValueError("holds more beside its pixels than it should")
