"""The order of data and the draws of augmentation."""

import numpy as np

from pipeline.utils.randomness import permutation, uniforms


def test_a_permutation_holds_each_sample_once_and_depends_on_seed_and_epoch():
    orders = [permutation(seed, epoch, 1000) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    assert len({order.tobytes() for order in orders}) == 4


def test_a_sample_draws_the_same_wherever_it_stands_in_a_batch():
    whole = uniforms(3, 5, np.arange(100), 4)
    np.testing.assert_array_equal(uniforms(3, 5, np.array([42, 7]), 4), whole[[42, 7]])
    np.testing.assert_array_equal(uniforms(3, 5, np.arange(100), 2), whole[:, :2])


def test_draws_are_uniform_and_uncorrelated_over_sample_epoch_and_draw():
    count = 100_000
    first, second = (uniforms(0, epoch, np.arange(count), 3) for epoch in (0, 1))
    assert first.min() >= 0.0
    assert first.max() < 1.0
    for column in first.T:
        # Each of 20 bins holds count / 20 with a standard deviation of sqrt(count / 20 * 19 / 20); five of them.
        bins = np.histogram(column, 20, (0, 1))[0]
        assert np.abs(bins - count / 20).max() < 5 * np.sqrt(count / 20 * 19 / 20)
    columns = [*first.T, *second.T, first[1:, 0], uniforms(1, 0, np.arange(count), 1)[:, 0]]
    shortest = min(map(len, columns))
    correlations = np.corrcoef([column[:shortest] for column in columns]) - np.eye(len(columns))
    assert np.abs(correlations).max() < 5 / np.sqrt(shortest)
