"""Read a table from an untrusted MATLAB file: a structure array of numbers and texts.

MAT-File Format, version 5 (The MathWorks). A file of this version is a header of 128 bytes and a sequence of elements,
each a type, a size and content, and often compressed. SciPy's reader allocates what a file claims, however small it is.
"""

import math
import struct
import zlib
from collections.abc import Iterator

_HEADER = 128
# Types of elements.
_NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
_FLOATS = (7, 9)
_TEXTS = {1: "ascii", 2: "ascii", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
_MATRIX, _COMPRESSED = 14, 15
# Classes of arrays.
_STRUCTURE, _CHARACTERS = 2, 4
# Limits far above those of a table: elements of an array, fields, bytes of a number's element.
_MAX_ELEMENTS = 1 << 16
_MAX_FIELDS = 64
_MAX_NUMBERS = 1 << 10


def read_table(content: bytes, name: str, fields: tuple[str, ...], max_bytes: int) -> list[tuple]:
    """Return the values of the `fields` in each row of the structure array `name`: a text, or a number as a float.

    Args:
        content: the MATLAB file.
        max_bytes: maximum size of the file when unpacked.

    Raises:
        ValueError: it is not such a file, exceeds a limit, or lacks the array or a field.
    """
    try:
        for element in _elements(content, max_bytes):
            array = _Array(element)
            if array.name == name:
                return _rows(array, fields)
    except (struct.error, IndexError, UnicodeDecodeError, zlib.error) as error:
        raise ValueError(f"it is damaged ({error!s:.100})") from error
    raise ValueError(f"it holds no structure array {name}")


def _elements(content: bytes, max_bytes: int) -> Iterator["_Element"]:
    """Yield the arrays of the file, unpacked."""
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None or len(content) > max_bytes:
        raise ValueError("it is not a MATLAB file of version 5" if order is None else f"it exceeds {max_bytes:,} bytes")
    place = _HEADER
    while place < len(content):
        element = _Element(content, place, order)
        place = element.end
        if element.type == _COMPRESSED:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(element.content, max_bytes) if max_bytes > 0 else b""  # 0: no limit
            if not unpacker.eof:
                raise ValueError(f"it is damaged, or unpacks to more than {max_bytes:,} bytes")
            max_bytes -= len(unpacked)
            place = element.start + element.size  # not padded
            element = _Element(unpacked, 0, order)
        yield element


class _Element:
    """One element at `place`; a small one has up to 4 bytes, stored in its tag."""

    def __init__(self, source: bytes, place: int, order: str) -> None:
        self.order = order
        self.type, self.size = struct.unpack_from(f"{order}II", source, place)
        if self.type >> 16:
            self.type, self.size, self.start, self.end = self.type & 0xFFFF, self.type >> 16, place + 4, place + 8
        else:
            self.start = place + 8
            self.end = self.start + -(-self.size // 8) * 8
        self.content = source[self.start : self.start + self.size]
        if len(self.content) < self.size:
            raise ValueError("it is cut short")

    def inner(self) -> Iterator["_Element"]:
        place = 0
        for _ in range(_MAX_ELEMENTS):
            if place >= len(self.content):
                return
            element = _Element(self.content, place, self.order)
            place = element.end
            yield element
        raise ValueError(f"an array has more than {_MAX_ELEMENTS:,} elements")

    def numbers(self) -> tuple[float, ...]:
        if self.type not in _NUMBERS or self.size > _MAX_NUMBERS:
            raise ValueError(f"an element has type {self.type} and {self.size:,} bytes; expected a few numbers")
        form = _NUMBERS[self.type]
        return struct.unpack(f"{self.order}{self.size // struct.calcsize(form)}{form}", self.content)

    def integers(self) -> tuple[int, ...]:
        if self.type in _FLOATS:
            raise ValueError("an element holds floating-point numbers; expected integers")
        return self.numbers()

    def text(self) -> str:
        if self.type not in _TEXTS:
            raise ValueError(f"an element has type {self.type}; expected text")
        encoding = _TEXTS[self.type]
        return self.content.decode(encoding + ("-le" if self.order == "<" else "-be") * (encoding == "utf-16"))


class _Array:
    """An array: its class, dimensions, name, and the elements that hold its values."""

    def __init__(self, element: _Element) -> None:
        if element.type != _MATRIX:
            raise ValueError(f"an element has type {element.type}; expected an array")
        flags, dimensions, name, *self.parts = element.inner()
        self.kind = flags.integers()[0] & 0xFF
        self.size = math.prod(dimensions.integers())
        self.name = name.text()

    def value(self) -> str | float | None:
        """Return a text, or a number; None for anything else."""
        if self.kind == _CHARACTERS:
            return self.parts[0].text() if self.parts else ""
        return float(self.parts[0].numbers()[0]) if self.kind > _CHARACTERS and self.size == 1 else None


def _rows(array: _Array, fields: tuple[str, ...]) -> list[tuple]:
    if array.kind != _STRUCTURE:
        raise ValueError(f"{array.name} is not a structure array")
    length, names, *values = array.parts
    (width,) = length.integers()
    if not 1 <= width <= names.size <= width * _MAX_FIELDS:
        raise ValueError(f"{array.name} has names of {width} and {names.size:,} bytes; expected 1 to {_MAX_FIELDS}")
    names = [names.content[start : start + width].rstrip(b"\0").decode() for start in range(0, names.size, width)]
    if missing := [field for field in fields if field not in names]:
        raise ValueError(f"{array.name} has no field {missing[0]}")
    if len(values) != array.size * len(names):
        raise ValueError(f"{array.name} has {len(values):,} values; expected {array.size:,} rows of {len(names)}")
    columns = [names.index(field) for field in fields]
    return [
        tuple(_Array(values[row + column]).value() for column in columns) for row in range(0, len(values), len(names))
    ]
