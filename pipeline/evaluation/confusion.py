"""Which classes a network takes for which."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Confusion:
    """Images of class `label` that are taken for class `predicted`: their number, and its share of the class."""

    label: int
    predicted: int
    count: int
    share: float


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count the images of each class by predicted class, integers (classes, classes); rows are the true classes.

    Args:
        labels, predicted: integers (n,), 0 to classes - 1.
    """
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def most_confused(matrix: np.ndarray, count: int) -> list[Confusion]:
    """Return up to `count` pairs of classes that are confused, the most frequent first; `matrix` holds the counts."""
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    images = matrix.sum(axis=1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = [tuple(map(int, np.unravel_index(index, wrong.shape))) for index in order]
    return [Confusion(*pair, int(wrong[pair]), float(wrong[pair] / images[pair[0]])) for pair in pairs if wrong[pair]]
