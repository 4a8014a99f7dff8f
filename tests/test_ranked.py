"""Rank-1 and rank-5 accuracy."""

import keras
import numpy as np
import pytest
from messages import naming

from pipeline.utils.ranked import rank5_accuracy


@pytest.mark.parametrize("classes", [2, 5, 6, 200])
def test_without_ties_it_is_keras_top_k(classes):
    rng = np.random.default_rng(classes)
    # A permutation per row: no two scores are equal.
    predictions = np.array([rng.permutation(classes) for _ in range(300)], np.float32)
    labels = rng.integers(0, classes, 300)
    one_hot = np.eye(classes)[labels]
    expected = [
        float(np.mean(keras.metrics.top_k_categorical_accuracy(one_hot, predictions, k=k)))
        for k in (1, min(5, classes))
    ]
    np.testing.assert_allclose(rank5_accuracy(predictions, labels), expected)


def test_of_equal_scores_the_lower_class_comes_first_as_argmax_has_it():
    scores = np.array([[0.4, 0.4, 0.1, 0.0, 0.0, 0.0, 0.1]])
    # In this order: 0, 1, 2, 6, 3, 4, 5.
    expected = {0: (1.0, 1.0), 1: (0.0, 1.0), 6: (0.0, 1.0), 3: (0.0, 1.0), 4: (0.0, 0.0), 5: (0.0, 0.0)}
    assert {label: rank5_accuracy(scores, np.array([label])) for label in expected} == expected


def test_rank_1_is_what_keras_counts_however_many_scores_are_the_same():
    rng = np.random.default_rng(0)
    predictions, labels = rng.integers(0, 4, (500, 20)).astype(np.float32), rng.integers(0, 20, 500)
    expected = float(np.mean(keras.metrics.categorical_accuracy(np.eye(20)[labels], predictions)))
    assert rank5_accuracy(predictions, labels)[0] == pytest.approx(expected)


def test_a_network_that_can_not_tell_is_as_good_as_chance():
    labels = np.arange(100) % 20
    assert rank5_accuracy(np.ones((100, 20)), labels) == (1 / 20, 5 / 20)


@pytest.mark.parametrize(
    ("predictions", "labels", "parts"),
    [
        ([[0.1, np.nan]], [0], ["NaN|nan"]),
        ([[0.1, 0.9]], [2], ["integers?", r"\b0\b", r"\b1\b"]),
        ([[0.1, 0.9]], [-1], ["integers?", r"\b0\b", r"\b1\b"]),
        ([[0.1, 0.9]], [0.0], ["integers?", r"\b0\b", r"\b1\b"]),
        ([[0.1, 0.9]], [0, 1], [r"\(1, 2\)", r"\(2,\)"]),
        ([0.1, 0.9], [0, 1], [r"\(2,\)", r"\(n, classes\)"]),
        (np.empty((0, 3)), np.empty(0, int), [r"\(0, 3\)", r"\(n, classes\)"]),
    ],
)
def test_what_has_no_rank_is_refused(predictions, labels, parts):
    with pytest.raises(ValueError, match=naming(*parts)):
        rank5_accuracy(np.array(predictions), np.array(labels))
