"""How well a network's confidence agrees with its accuracy.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", 2017, arXiv:1706.04599.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 15
"""Number of bins, as in the paper."""


@dataclass(frozen=True)
class Bin:
    """The images whose confidence is above `low` and at most `high`: their number, mean confidence and accuracy.

    The means are None without images.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


def calibration_bins(confidences: np.ndarray, is_hit: np.ndarray, bins: int = BINS) -> list[Bin]:
    """Sort images into `bins` bins of equal width by their confidence.

    Args:
        confidences: the probability of the predicted class, above 0 and at most 1, floats (n,).
        is_hit: True where that class is right, booleans (n,).
    """
    confidences = confidences.astype(np.float64)
    edges = np.linspace(0.0, 1.0, bins + 1)
    # Rounding may take a probability just above 1.
    numbers = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, bins - 1)
    found = []
    for number, (low, high) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        inside = numbers == number
        means = (float(values[inside].mean()) if inside.any() else None for values in (confidences, is_hit))
        found.append(Bin(low, high, int(inside.sum()), *means))
    return found


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Return the mean distance of accuracy and confidence over all images, bin by bin: 0 to 1, lower is better."""
    filled = [found for found in bins if found.count]
    total = sum(found.count for found in filled)
    return sum(found.count / total * abs(found.accuracy - found.confidence) for found in filled)
