"""What this project takes from an HDF5 file, and no more.

HDF5 can do much that a file from a stranger should not ask for: links to other files, values that lie in other files
or are put together from several, filters that run while values are read, sizes that no file holds. All of it shows
before a value is read, and a file that has any of it is refused.
"""

import struct
from collections.abc import Collection, Iterable, Mapping

import h5py
import numpy as np

from pipeline.errors import InputError

MAX_TEXT = 1024
"""Bytes of a text, of those in a dataset."""


def check_members(group: h5py.Group, members: Mapping[str, object]) -> None:
    """Check that `group` holds exactly `members`: names, each with a mapping like this one if it is a group itself.

    Raises:
        InputError: a member is missing, is something else than it should be, or there are others.
    """
    for name, inner in members.items():
        member = _member(group, name)
        if isinstance(member, h5py.Group) != isinstance(inner, Mapping):
            raise InputError(f"{_path(group, name)} is a {type(member).__name__.lower()}, which it never is")
        if isinstance(inner, Mapping):
            check_members(member, inner)
    if len(group) > len(members):
        strange = next(name for name in group if name not in members)
        raise InputError(f"{_path(group, strange)!a:.100} is not expected there")


def group_of(group: h5py.Group, name: str) -> h5py.Group:
    """The group `name` in `group`; `InputError` if it is missing or anything else."""
    member = _member(group, name)
    if not isinstance(member, h5py.Group):
        raise InputError(f"{_path(group, name)} is a {type(member).__name__.lower()}; expected a group")
    return member


def dataset_of(
    group: h5py.Group, name: str, dtypes: Collection[np.dtype | str], shape: tuple[int | None, ...]
) -> h5py.Dataset:
    """The dataset `name` of `group`, seen to lie whole in this file as one block, unread.

    Args:
        dtypes: what its values may be; "S" stands for texts of any one length up to `MAX_TEXT` bytes.
        shape: None in it stands for any number of at least 1.

    Raises:
        InputError: it is missing, or anything else.
    """
    dataset, path = _member(group, name), _path(group, name)
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"{path} is a {type(dataset).__name__.lower()}; expected a dataset")
    properties = dataset.id.get_create_plist()
    layout = properties.get_layout()
    if layout == h5py.h5d.VIRTUAL:
        raise InputError(f"{path} is put together from other datasets; expected one contiguous block")
    if properties.get_external_count():
        raise InputError(f"{path} lies in another file; expected one contiguous block")
    if layout != h5py.h5d.CONTIGUOUS or properties.get_nfilters():
        raise InputError(f"{path} is not one contiguous block")
    if not any(_is(dataset.dtype, np.dtype(dtype)) for dtype in dtypes):
        raise InputError(f"{path} is {dataset.dtype!s:.100}; expected {' or '.join(map(str, dtypes))}")
    if not _fits(dataset.shape, shape):
        raise InputError(f"{path} has shape {dataset.shape!s:.100}; expected {_described(shape)}")
    offset, size = dataset.id.get_offset(), dataset.size * dataset.dtype.itemsize
    if offset is None or dataset.id.get_storage_size() != size or offset + size > dataset.file.id.get_filesize():
        raise InputError(f"{path} is {size:,} bytes, which the file does not hold")
    return dataset


def check_attributes(item: h5py.Group | h5py.Dataset, names: Collection[str] = ()) -> None:
    """`InputError` if `item` has other attributes than `names`, or one less."""
    if len(item.attrs) != len(names) or set(item.attrs) != set(names):
        raise InputError(f"{item.name} does not have exactly the attributes {', '.join(names) or 'none'}")


def check_disjoint(datasets: Iterable[h5py.Dataset]) -> None:
    """`InputError` if two of `datasets` share bytes of the file, which then stand for more than it holds."""
    end, places = 0, sorted((dataset.id.get_offset(), dataset.nbytes, dataset.name) for dataset in datasets)
    for offset, size, name in places:
        if offset < end:
            raise InputError(f"{name} shares its bytes with another dataset")
        end = offset + size


def text_attribute(item: h5py.Group | h5py.Dataset, name: str, max_bytes: int) -> str:
    """The attribute `name`, a text of a fixed length of at most `max_bytes` bytes; `InputError` for anything else."""
    attribute = _attribute(item, name)
    if attribute.dtype.kind != "S" or attribute.dtype.itemsize > max_bytes:
        raise InputError(f"the attribute {name} of {item.name} is no text of at most {max_bytes:,} bytes")
    return item.attrs[name].decode()


def variable_text_attribute(file: h5py.File, content: Iterable[bytes], name: str, max_bytes: int) -> str:
    """The attribute `name` of the root group, a text of a length of its own, of at most `max_bytes` bytes.

    HDF5 allocates what such a text claims to be before it looks whether the file holds it. So the claim is looked up
    first, in the attribute's message (HDF5 File Format Specification, IV.A.2.m), which its name gives away.

    Args:
        content: all of the file.

    Raises:
        InputError: it is missing, or anything else.
    """
    attribute, content = _attribute(file, name), b"".join(content)
    kind = h5py.check_string_dtype(attribute.dtype)
    if kind is None or kind.length is not None:
        raise InputError(f"the attribute {name} of {file.name} is no text of a length of its own")
    mark, place = name.encode() + b"\0", -1
    while (place := content.find(mark, place + 1)) >= 0:
        version, _, *sizes = struct.unpack_from("<BBHHH", content, place - 8)
        value = place + sum(-(-size // 8) * 8 for size in sizes)
        (length,) = struct.unpack_from("<I", content, value)
        if version != 1 or length > max_bytes:
            raise InputError(f"attribute {name} of {file.name} claims {length:,} bytes; expected at most {max_bytes:,}")
    return file.attrs[name]


def flag_attribute(item: h5py.Group | h5py.Dataset, name: str) -> bool:
    """The attribute `name`, a truth value; `InputError` if it is missing or anything else."""
    if _attribute(item, name).dtype != np.bool_:
        raise InputError(f"the attribute {name} of {item.name} is no truth value")
    return bool(item.attrs[name])


def _attribute(item: h5py.Group | h5py.Dataset, name: str) -> h5py.h5a.AttrID:
    if not h5py.h5a.exists(item.id, name.encode()):
        raise InputError(f"{item.name} lacks the attribute {name}")
    attribute = h5py.h5a.open(item.id, name.encode())
    if attribute.shape != ():
        raise InputError(f"the attribute {name} of {item.name} is not one value")
    return attribute


def _member(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    link = group.get(name, getlink=True)
    if link is None:
        raise InputError(f"{_path(group, name)} is missing")
    if not isinstance(link, h5py.HardLink):
        raise InputError(f"{_path(group, name)} is a link that leads elsewhere")
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


def _described(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('n' if number is None else str(number) for number in shape)})"
