"""Memory of batches is reused only when nothing refers to it."""

import gc

import jax
import numpy as np
import pytest
import tensorflow as tf

from pipeline.io import ArrayImages, Batches
from pipeline.utils import memory

SHAPE = (7, 11, 13)


def place(array):
    return array.ctypes.data


def test_memory_is_used_again_once_its_array_is_gone():
    first = memory.empty(SHAPE, np.float32)
    assert first.shape == SHAPE
    assert first.dtype == np.float32
    assert first.flags.c_contiguous
    assert first.flags.writeable
    where = place(first)
    assert place(memory.empty(SHAPE, np.float32)) != where
    del first
    assert where in {place(array) for array in [memory.empty(SHAPE, np.float32) for _ in range(2)]}


@pytest.mark.parametrize(
    "take",
    [
        lambda array: array[1:, 2],
        lambda array: array.view(np.uint32).reshape(-1)[::2],
        lambda array: np.asarray(array.T),
        memoryview,
        lambda array: jax.device_put(array),
        lambda array: tf.convert_to_tensor(array),
        lambda array: next(
            iter(tf.data.Dataset.from_generator(lambda: [array], output_signature=tf.TensorSpec(SHAPE)))
        ),
    ],
    ids=["slice", "another dtype", "transposed", "buffer", "jax", "tensorflow", "tf.data"],
)
def test_what_still_sees_an_array_keeps_its_values(take):
    array = memory.empty(SHAPE, np.float32)
    array[:] = 1.0
    seen = take(array)
    expected = np.array(seen)
    del array
    gc.collect()
    for _ in range(3):
        memory.empty(SHAPE, np.float32)[:] = 2.0
    np.testing.assert_array_equal(np.array(seen), expected)


def test_a_step_that_is_still_computing_keeps_its_batch():
    total = jax.jit(lambda images: images.sum())
    sums = []
    for value in range(200):
        array = memory.empty((64, 1024), np.float32)
        array[:] = value
        sums.append(total(array))  # returns before the batch is read
        del array
    np.testing.assert_array_equal(np.array(sums), 64 * 1024 * np.arange(200))


def test_an_epoch_needs_no_more_memory_than_what_is_on_the_way():
    images = np.zeros((640, 9, 9, 3), np.uint8)
    batches = Batches(ArrayImages(images, np.zeros(640, int), ["a"]), 16, training=True, workers=2)
    size = 16 * 9 * 9 * 3
    memory._free(size).clear()
    for _ in batches:
        pass
    # Held by the consumer, the next one, two ahead per worker, and one in progress per worker.
    assert 0 < len(memory._free(size)) <= 2 + 4 + 2
    batches.close()
