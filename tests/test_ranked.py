"""Rank-1 and rank-5 accuracy."""

import keras
import numpy as np
import pytest

from pipeline.utils.ranked import rank5_accuracy


@pytest.mark.parametrize("classes", [2, 5, 6, 200])
def test_without_ties_it_is_keras_top_k(classes):
    rng = np.random.default_rng(classes)
    # A permutation a row: no two scores are the same.
    predictions = np.array([rng.permutation(classes) for _ in range(300)], np.float32)
    labels = rng.integers(0, classes, 300)
    one_hot = np.eye(classes)[labels]
    expected = [
        float(np.mean(keras.metrics.top_k_categorical_accuracy(one_hot, predictions, k=k)))
        for k in (1, min(5, classes))
    ]
    np.testing.assert_allclose(rank5_accuracy(predictions, labels), expected)


def test_a_label_counts_if_fewer_than_k_others_score_at_least_as_high():
    scores = np.array([[0.4, 0.4, 0.1, 0.0, 0.0, 0.0, 0.1]])
    # Class 0 shares the first place; 2 has two above and one beside it; 3 has four at least as high and two beside it.
    assert rank5_accuracy(scores, np.array([0])) == (0.0, 1.0)
    assert rank5_accuracy(scores, np.array([2])) == (0.0, 1.0)
    assert rank5_accuracy(scores, np.array([3])) == (0.0, 0.0)


def test_a_network_that_can_not_tell_is_right_about_nothing():
    labels = np.arange(10) % 6
    assert rank5_accuracy(np.ones((10, 6)), labels) == (0.0, 0.0)
    assert rank5_accuracy(np.ones((10, 5)), labels % 5) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([[0.1, np.nan]], [0], "NaN"),
        ([[0.1, 0.9]], [2], "integers from 0 to 1"),
        ([[0.1, 0.9]], [-1], "integers from 0 to 1"),
        ([[0.1, 0.9]], [0.0], "integers from 0 to 1"),
        ([[0.1, 0.9]], [0, 1], r"\(1, 2\) and labels \(2,\)"),
        ([0.1, 0.9], [0, 1], r"expected \(n, classes\)"),
        (np.empty((0, 3)), np.empty(0, int), r"expected \(n, classes\)"),
    ],
)
def test_what_has_no_rank_is_refused(predictions, labels, message):
    with pytest.raises(ValueError, match=message):
        rank5_accuracy(np.array(predictions), np.array(labels))
