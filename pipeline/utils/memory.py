"""Memory for batches, used again and again."""

import math
import mmap
import weakref
from functools import lru_cache

import numpy as np


def empty(shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """As `numpy.empty`, in the memory of an earlier such array that nothing refers to any more, if there is one.

    Batches are a few megabytes, which the system's allocator hands out page by page, each cleared and entered anew;
    beside a working TensorFlow that takes several times as long as filling them. The memory begins at a page, so that
    TensorFlow and JAX take a batch over on a CPU without copying it. It is used again once the array, every view of it
    and whatever took it over are gone; as much is kept as was in use at one time, of the last few sizes.
    """
    dtype = np.dtype(dtype)
    count = math.prod(shape)
    size = max(count * dtype.itemsize, 1)
    free = _free(size)
    try:
        memory = free.pop()
    except IndexError:
        memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # Every view of this array refers to it, however it was made, and to nothing below it.
    owner = np.frombuffer(memory, dtype, count)
    weakref.finalize(owner, free.append, memory).atexit = False
    return owner.reshape(shape)


@lru_cache(maxsize=8)
def _free(size: int) -> list[mmap.mmap]:
    """The memory of `size` bytes that is in no use."""
    return []
