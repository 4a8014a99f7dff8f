"""Files as a stranger may make them: changed at will, with a seal that is valid again."""

import hashlib
import struct

import h5py

BLOCK = 512
_SEAL = struct.Struct("<16sQ32sQQ")


def forge(path, change, images=None):
    """Change the HDF5 file `path` by `change`, given the open file, and seal it anew.

    Args:
        images: the name of the dataset that the digest leaves out, of a data file.
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
    """Give the file `path`, whatever it holds, a seal that fits it; `numbers` as they are if None."""
    content = path.read_bytes()
    magic, _, _, *there = _SEAL.unpack_from(content)
    numbers = there if numbers is None else numbers
    rest = content[BLOCK:]
    digested = rest if not spare else content[BLOCK : numbers[0]] + content[sum(numbers) :]
    seal = _SEAL.pack(magic, len(rest), hashlib.sha256(digested).digest(), *numbers)
    path.write_bytes(seal.ljust(BLOCK, b"\0") + rest)
