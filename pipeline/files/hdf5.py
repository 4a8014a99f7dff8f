"""Read untrusted HDF5 files safely.

HDF5 has features that are unsafe in an untrusted file: links to other files, external and virtual datasets, filters
that run while data is read, sizes larger than the file. All are visible before data is read; a file that uses one is
refused.
"""

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain

import h5py
import numpy as np

from pipeline.errors import InputError

MAX_TEXT = 1024
"""Maximum size of a text in a dataset, in bytes."""
# The header of an attribute's message in front of the name: version, reserved, sizes of name, type and shape.
_MESSAGE_HEADER = struct.Struct("<BBHHH")
_LARGEST_MESSAGE = 3 * (1 << 16) + 4


def check_members(group: h5py.Group, members: Mapping[str, object]) -> None:
    """Check that `group` has exactly the given `members`, which map names of groups to such mappings, others to None.

    Raises:
        InputError: a member is missing, unexpected, or of the wrong type.
    """
    for name, inner in members.items():
        member = _member(group, name)
        if isinstance(member, h5py.Group) != isinstance(inner, Mapping):
            expected = "group" if isinstance(inner, Mapping) else "dataset"
            raise InputError(f"{_path(group, name)} is a {type(member).__name__.lower()}; expected a {expected}")
        if isinstance(inner, Mapping):
            check_members(member, inner)
    if len(group) > len(members):
        unexpected = next(name for name in group if name not in members)
        raise InputError(f"{_path(group, unexpected)!a:.100} is not expected")


def group_of(group: h5py.Group, name: str) -> h5py.Group:
    """Return the group `name` in `group`; raise `InputError` if it isn't one."""
    member = _member(group, name)
    if not isinstance(member, h5py.Group):
        raise InputError(f"{_path(group, name)} is a {type(member).__name__.lower()}; expected a group")
    return member


def dataset_of(
    group: h5py.Group, name: str, dtypes: Collection[np.dtype | str], shape: tuple[int | None, ...]
) -> h5py.Dataset:
    """Return the dataset `name` of `group`, unread, after checking that it is one contiguous block of this file.

    Args:
        dtypes: allowed types; "S" allows texts of a fixed length of up to `MAX_TEXT` bytes.
        shape: the expected shape; None in it allows any number of at least 1.

    Raises:
        InputError: the dataset is missing, or has another type, shape or layout.
    """
    dataset, path = _member(group, name), _path(group, name)
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"{path} is a {type(dataset).__name__.lower()}; expected a dataset")
    properties = dataset.id.get_create_plist()
    layout = properties.get_layout()
    if layout == h5py.h5d.VIRTUAL:
        raise InputError(f"{path} is a virtual dataset; expected one contiguous block")
    if properties.get_external_count():
        raise InputError(f"{path} is stored in an external file; expected one contiguous block")
    if layout != h5py.h5d.CONTIGUOUS or properties.get_nfilters():
        raise InputError(f"{path} is chunked, compact or filtered; expected one contiguous block")
    if not any(_is(dataset.dtype, np.dtype(dtype)) for dtype in dtypes):
        raise InputError(f"{path} is {dataset.dtype!s:.100}; expected {' or '.join(map(str, dtypes))}")
    if not _fits(dataset.shape, shape):
        raise InputError(f"{path} has shape {dataset.shape!s:.100}; expected {_shape_text(shape)}")
    offset, size = dataset.id.get_offset(), dataset.size * dataset.dtype.itemsize
    if offset is None or dataset.id.get_storage_size() != size or offset + size > dataset.file.id.get_filesize():
        raise InputError(f"{path} claims {size:,} bytes, which the file does not hold")
    return dataset


def check_attributes(item: h5py.Group | h5py.Dataset, names: Collection[str] = ()) -> None:
    """Raise `InputError` unless `item` has exactly the attributes `names`."""
    if len(item.attrs) != len(names) or set(item.attrs) != set(names):
        found = ", ".join(item.attrs) or "none"
        raise InputError(f"{item.name} has the attributes {found!a:.100}; expected {', '.join(names) or 'none'}")


def check_disjoint(datasets: Iterable[h5py.Dataset]) -> None:
    """Raise `InputError` if two of `datasets` share bytes, so that a small file could claim large arrays."""
    end, blocks = 0, sorted((dataset.id.get_offset(), dataset.nbytes, dataset.name) for dataset in datasets)
    for offset, size, name in blocks:
        if offset < end:
            raise InputError(f"{name} shares bytes with another dataset")
        end = offset + size


def text_attribute(item: h5py.Group | h5py.Dataset, name: str, max_bytes: int) -> str:
    """Return the attribute `name`, a fixed-length text of at most `max_bytes` bytes; else raise `InputError`."""
    attribute = _attribute(item, name)
    if attribute.dtype.kind != "S" or attribute.dtype.itemsize > max_bytes:
        raise InputError(f"the attribute {name} of {item.name} is not a text of at most {max_bytes:,} bytes")
    return item.attrs[name].decode()


def variable_text_attribute(file: h5py.File, content: Iterable[bytes], name: str, max_bytes: int) -> str:
    """Return the attribute `name` of the root group, a variable-length text of at most `max_bytes` bytes.

    HDF5 allocates the length that such a text claims before it checks that the file holds it. So this first reads the
    claimed length from the attribute's message (HDF5 File Format Specification, IV.A.2.m), found by the name.

    Args:
        content: the whole file, in blocks.

    Raises:
        InputError: the attribute is missing, longer, or not such a text.
    """
    kind = h5py.check_string_dtype(_attribute(file, name).dtype)
    if kind is None or kind.length is not None:
        raise InputError(f"the attribute {name} of {file.name} is not a variable-length text")
    for message in _around(name.encode() + b"\0", content, before=_MESSAGE_HEADER.size, after=_LARGEST_MESSAGE):
        try:
            version, _, *sizes = _MESSAGE_HEADER.unpack_from(message)
            value = _MESSAGE_HEADER.size + sum(-(-size // 8) * 8 for size in sizes)
            (length,) = struct.unpack_from("<I", message, value)
        except struct.error as error:
            raise InputError(f"attribute {name} of {file.name} is cut off") from error
        if version != 1 or length > max_bytes:
            raise InputError(f"attribute {name} of {file.name} claims {length:,} bytes; expected at most {max_bytes:,}")
    return file.attrs[name]


def _around(pattern: bytes, content: Iterable[bytes], before: int, after: int) -> Iterator[bytes]:
    """Yield what surrounds each `pattern`: from `before` bytes in front of it to `after` bytes behind its start.

    Parts are shorter at the end of the `content`, of which a block or two are in memory at a time.
    """
    window = bytes(before)
    for block in chain(content, [None]):
        is_last = block is None
        window += block or b""
        end = len(window) if is_last else max(before, len(window) - after)
        place = window.find(pattern, before)
        while 0 <= place < end:
            yield window[place - before : place + after]
            place = window.find(pattern, place + 1)
        window = window[end - before :]


def count_attribute(item: h5py.Group | h5py.Dataset, name: str, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Return the attribute `name`, uint64 of the given `shape`; raise `InputError` if it isn't such an array."""
    if _attribute(item, name, shape).dtype != np.uint64:
        raise InputError(f"the attribute {name} of {item.name} is not uint64")
    return np.asarray(item.attrs[name])


def flag_attribute(item: h5py.Group | h5py.Dataset, name: str) -> bool:
    """Return the attribute `name`, a boolean; raise `InputError` if it isn't one."""
    if _attribute(item, name).dtype != np.bool_:
        raise InputError(f"the attribute {name} of {item.name} is not a boolean")
    return bool(item.attrs[name])


def _attribute(item: h5py.Group | h5py.Dataset, name: str, shape: tuple[int, ...] = ()) -> h5py.h5a.AttrID:
    if not h5py.h5a.exists(item.id, name.encode()):
        raise InputError(f"{item.name} lacks the attribute {name}")
    attribute = h5py.h5a.open(item.id, name.encode())
    if attribute.shape != shape:
        raise InputError(f"the attribute {name} of {item.name} is not {'an array' if shape else 'a scalar'}")
    return attribute


def _member(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    link = group.get(name, getlink=True)
    if link is None:
        raise InputError(f"{_path(group, name)} is missing")
    if not isinstance(link, h5py.HardLink):
        raise InputError(f"{_path(group, name)} is a soft or external link; expected a hard link")
    return group[name]


def _is(actual: np.dtype, expected: np.dtype) -> bool:
    if expected == np.dtype("S"):
        return actual.kind == "S" and 1 <= actual.itemsize <= MAX_TEXT
    return actual == expected


def _path(group: h5py.Group, name: str) -> str:
    return f"{group.name.rstrip('/')}/{name}".lstrip("/")


def _fits(actual: tuple[int, ...] | None, expected: tuple[int | None, ...]) -> bool:
    return (
        actual is not None
        and len(actual) == len(expected)
        and all(size == wanted or (wanted is None and size >= 1) for size, wanted in zip(actual, expected, strict=True))
    )


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('n' if number is None else str(number) for number in shape)})"
