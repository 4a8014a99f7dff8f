"""Change files as a stranger could, and give them a valid seal."""

import hashlib
import struct

import h5py

BLOCK = 512
_SEAL = struct.Struct("<16sQ32sQQ")


def forge(path, change, images=None):
    """Apply `change` to the open HDF5 file `path`, and seal it again.

    Args:
        images: name of the dataset that a data file's digest omits.
    """
    with h5py.File(path, "r+") as file:
        change(file)
    numbers = None
    if images is not None:
        with h5py.File(path) as file:
            stored = isinstance(file.get(images), h5py.Dataset) and file[images].id.get_storage_size()
            numbers = (file[images].id.get_offset() or BLOCK, stored) if stored else (BLOCK, 0)
    reseal(path, numbers, spare=images is not None)


def reseal(path, numbers=None, spare=False):
    """Give the file `path` a valid seal with the given `numbers`; None keeps the file's own."""
    content = path.read_bytes()
    magic, _, _, *there = _SEAL.unpack_from(content)
    numbers = there if numbers is None else numbers
    rest = content[BLOCK:]
    digested = rest if not spare else content[BLOCK : numbers[0]] + content[sum(numbers) :]
    seal = _SEAL.pack(magic, len(rest), hashlib.sha256(digested).digest(), *numbers)
    path.write_bytes(seal.ljust(BLOCK, b"\0") + rest)
