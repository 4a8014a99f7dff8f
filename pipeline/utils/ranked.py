"""How often the right class is among the best-scored ones."""

import numpy as np

from pipeline.errors import InputError


def rank5_accuracy(predictions: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Rank-1 and rank-5 accuracy, also called top-1 and top-5, as fractions from 0 to 1.

    A label counts for rank k if fewer than k other classes come before it: those that score higher, and of those that
    score the same, those with a lower number. So rank-1 is what `argmax` and Keras' `accuracy` count, a network that
    scores all classes the same is as good as chance, and each rank names exactly k classes.

    Args:
        predictions: scores (n, classes), real numbers; the higher, the likelier.
        labels: integers (n,), 0 to classes - 1.

    Raises:
        InputError: (a `ValueError`) a score is NaN, a label is out of range, the shapes don't fit, or n is 0.
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
    before = ((predictions > own) | ((predictions == own) & is_lower)).sum(axis=1)
    return float(np.mean(before < 1)), float(np.mean(before < 5))
