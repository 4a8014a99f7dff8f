"""Reuse the memory of batches."""

import math
import mmap
import weakref
from functools import lru_cache

import numpy as np


def empty(shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """Return an array like `numpy.empty`, in the memory of an earlier array that is no longer referenced, if any.

    Batches take a few megabytes, which the system's allocator maps and clears page by page; while TensorFlow is busy,
    that takes several times as long as filling them. The memory is page-aligned, so that TensorFlow and JAX use a batch
    on a CPU without a copy. It is reused once the array and all its views are gone. For the last 8 sizes, as much is
    kept as was in use at one time.
    """
    dtype = np.dtype(dtype)
    count = math.prod(shape)
    size = max(count * dtype.itemsize, 1)
    free = _free(size)
    try:
        memory = free.pop()
    except IndexError:
        memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # Views of this array keep a reference to it, not to the memory map below it.
    owner = np.frombuffer(memory, dtype, count)
    weakref.finalize(owner, free.append, memory).atexit = False
    return owner.reshape(shape)


@lru_cache(maxsize=8)
def _free(size: int) -> list[mmap.mmap]:
    """Return the list of free blocks of `size` bytes."""
    return []
