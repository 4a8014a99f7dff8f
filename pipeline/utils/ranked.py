"""Rank-1 and rank-5 accuracy."""

import numpy as np

from pipeline.errors import InputError


def rank5_accuracy(predictions: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return rank-1 and rank-5 accuracy, also called top-1 and top-5, as fractions from 0 to 1.

    Rank-1 equals `argmax` and Keras' `accuracy`, and equal scores for all classes give chance level. For arguments and
    errors see `ranks`.
    """
    found = ranks(predictions, labels)
    return within(found, 1), within(found, 5)


def within(ranks: np.ndarray, k: int) -> float:
    """Return the fraction of `ranks` (n,) that are at most `k`: the rank-k accuracy."""
    return float(np.mean(ranks <= k))


def ranks(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the rank of each label among all classes by score, integers (n,) from 1.

    A rank is one more than the number of classes with a higher score, or with an equal score and a lower number.

    Args:
        predictions: scores (n, classes), real numbers, higher for likelier classes.
        labels: integers (n,), 0 to classes - 1.

    Raises:
        InputError: (a `ValueError`) a score is NaN, a label is out of range, shapes don't match, or n is 0.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.ndim != 2 or labels.shape != predictions.shape[:1] or not len(labels):
        raise InputError(f"predictions are {predictions.shape} and labels {labels.shape}; expected (n, classes), (n,)")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= predictions.shape[1]:
        raise InputError(f"labels are not integers from 0 to {predictions.shape[1] - 1}")
    if predictions.dtype.kind not in "fiu":
        raise InputError(f"predictions are {predictions.dtype}; expected real numbers")
    if np.isnan(predictions).any():
        raise InputError("predictions hold NaN; the model has diverged or its weights are damaged")
    own = np.take_along_axis(predictions, labels[:, None], axis=1)
    is_lower = np.arange(predictions.shape[1]) < labels[:, None]
    return 1 + ((predictions > own) | ((predictions == own) & is_lower)).sum(axis=1)
