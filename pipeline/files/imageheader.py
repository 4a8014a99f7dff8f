"""Check the structure of a JPEG or PNG file, and read its size, before decoding it.

JPEG: ITU-T T.81, annex B. PNG: W3C Portable Network Graphics, third edition, chapter 5.
"""

import re
import struct
import zlib
from dataclasses import dataclass

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"

# Limits far above those of a photograph: scans of a progressive JPEG; bytes of text, profiles and the like in a PNG,
# which decoders unpack.
_MAX_SCANS = 64
_MAX_TEXT = 1 << 20

# A marker that ends the coded data of a scan. Inside it, 0xFF 0x00 encodes the byte 0xFF, and restart markers occur.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_START_OF_SCAN, _END_OF_IMAGE, _RESTART_INTERVAL = 0xDA, 0xD9, 0xDD
# Sequential coding with Huffman tables, in samples of 8 bits.
_SEQUENTIAL = frozenset({0xC0, 0xC1})
_SEGMENTS = frozenset({*range(0xC0, 0xFF)} - {*range(0xD0, 0xDA)})
_END = b"\xff\xd9"
# The colour of a row is interpolated with that of the row below it, which may stand for 8 rows; and rows are coded in
# blocks, of 16 in most files.
_MARGIN, _BLOCK_ROWS = 8, 16
_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"})
_ORIENTATION_CHUNK = b"eXIf"
_APP0, _JFIF = 0xE0, b"JFIF\0"

# First bytes of other image formats.
_OTHERS = {
    kind: re.compile(start, re.DOTALL)
    for kind, start in {
        "GIF": rb"GIF8[79]a",
        "BMP": rb"BM.{4}\x00{4}",
        "TIFF": rb"II\*\x00|MM\x00\*",
        "WebP": rb"RIFF.{4}WEBP",
        "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
        "JPEG XL": rb"\0\0\0\x0cJXL |\xff\x0a",
        "AVIF": rb".{4}ftypavi[fs]",
        "HEIC": rb".{4}ftyp(hei[cmsx]|hevc|mif1|msf1)",
        "Photoshop": rb"8BPS",
        "ICO": rb"\x00\x00\x01\x00",
    }.items()
}
MARK_BYTES = 16
"""Number of bytes at the start of a file that identify its format."""


@dataclass(frozen=True)
class Header:
    """The size of an image in pixels, and the parts of its file that determine the pixels.

    Decoders also warn about other parts, such as a mismatched colour profile, which don't matter here.
    """

    width: int
    height: int
    essential: bytes


def read_header(content: bytes) -> Header:
    """Read the header of the JPEG or PNG file `content`, and check that the file is complete.

    Raises:
        ValueError: it is not JPEG or PNG, is truncated or damaged, or exceeds a limit.
    """
    try:
        if content.startswith(JPEG):
            return _read_jpeg(content)
        if content.startswith(PNG):
            return _read_png(content)
    except (IndexError, struct.error) as error:
        raise ValueError("is truncated") from error
    raise ValueError(f"is {other_kind(content) or 'an unknown format'}, not JPEG or PNG")


@dataclass(frozen=True)
class Frame:
    """The size in pixels of a JPEG file whose rows are coded one after the other, in a single scan.

    `place` is that of the height in the file.
    """

    width: int
    height: int
    place: int


def read_frame(content: bytes) -> Frame | None:
    """Read the size of a JPEG file of one sequential scan; return None for any other file.

    The scan ends with the file: nothing follows that a decoder could meet, or complain about.
    """
    if not content.startswith(JPEG):
        return None
    frame, components, place = None, 0, 2
    try:
        # Each segment has a length: decoders skip other markers, and bytes 0xFF before a marker.
        while content[place] == 0xFF and content[place + 1] in _SEGMENTS:
            marker, (length,) = content[place + 1], struct.unpack_from(">H", content, place + 2)
            if marker in _SEQUENTIAL and frame is None and content[place + 4] == 8:
                height, width, components = struct.unpack_from(">HHB", content, place + 5)
                frame = Frame(width, height, place + 5)
            elif marker in _START_OF_FRAME or marker == _RESTART_INTERVAL:
                return None
            elif marker == _START_OF_SCAN:
                end = _MARKER.search(content, place + 2 + length)
                is_last = end is not None and content[end.start() :] == _END
                return frame if is_last and content[place + 4] == components else None
            place += 2 + length
    except (IndexError, struct.error):
        pass
    return None


def first_rows(content: bytes, frame: Frame, rows: int) -> bytes | bytearray:
    """Return a JPEG file of at least the first `rows` rows of `content`, which decodes faster; its rest is ignored."""
    height = -(-(rows + _MARGIN) // _BLOCK_ROWS) * _BLOCK_ROWS
    if height >= frame.height:
        return content
    # Without its end marker, libjpeg doesn't complain about the data left over.
    part = bytearray(content[: -len(_END)])
    struct.pack_into(">H", part, frame.place, height)
    return part


def other_kind(content: bytes) -> str | None:
    """Return the image format, other than JPEG and PNG, that begins like `content`; None if unknown."""
    return next((kind for kind, start in _OTHERS.items() if start.match(content)), None)


def _read_jpeg(content: bytes) -> Header:
    size, scans, place, essential = None, 0, 2, content
    while True:
        found = _MARKER.search(content, place)
        if found is None:
            raise ValueError("is truncated")
        marker, place = content[found.start() + 1], found.end()
        if marker == _END_OF_IMAGE and scans:
            return Header(*size, essential)
        if marker in (0x01, 0xD8):
            continue  # markers without content
        (length,) = struct.unpack_from(">H", content, place)
        if marker in _START_OF_FRAME and size is None:
            height, width = struct.unpack_from(">HH", content, place + 3)
            size = width, height
        elif marker == _START_OF_SCAN:
            scans += 1
            if size is None or scans > _MAX_SCANS:
                raise ValueError("has scans without a frame" if size is None else "has too many scans")
        elif marker == _APP0 and content.startswith(_JFIF, place + 2) and content[place + 7] != 1:
            # libjpeg warns about any other JFIF version, and then suppresses further warnings.
            essential = essential[: place + 7] + b"\1" + essential[place + 8 :]
        place += length


def _read_png(content: bytes) -> Header:
    width, height = struct.unpack_from(">II", content, len(PNG) + 8)
    place, beside, kept = len(PNG), 0, [PNG]
    while True:
        length, kind = struct.unpack_from(">I4s", content, place)
        chunk = content[place : place + 12 + length]
        place += 12 + length
        if place > len(content):
            raise ValueError("is truncated")
        if kind == b"acTL":
            raise ValueError("is an animation")
        # Keep unknown critical chunks, whose names begin with a capital, so that libpng refuses them.
        if kind in (*_PIXEL_CHUNKS, _ORIENTATION_CHUNK) or kind[:1].isupper():
            kept.append(chunk)
        elif zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            raise ValueError(f"is damaged: the checksum of its chunk {kind.decode('latin-1')!a} differs")
        if kind == b"IEND":
            return Header(width, height, b"".join(kept))
        if kind not in _PIXEL_CHUNKS:
            beside += length
            if beside > _MAX_TEXT:
                raise ValueError(f"holds more than {_MAX_TEXT:,} bytes besides its pixels")
