"""What a network predicts for labelled images."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from pipeline.utils.ranked import ranks


@dataclass(frozen=True)
class Predictions:
    """The predictions for n images, in order.

    Args:
        labels: their classes, integers (n,).
        ranks: the rank of each image's class, from 1, integers (n,) (see `pipeline.utils.ranked`).
        predicted: the likeliest class, integers (n,).
        confidences: its probability, float32 (n,).
        probabilities: that of the image's own class, float32 (n,).
    """

    labels: np.ndarray
    ranks: np.ndarray
    predicted: np.ndarray
    confidences: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, labels: np.ndarray) -> Self:
        """Summarize `scores`, the probabilities of each class, float32 (n, classes), for `labels`, integers (n,)."""
        images, predicted = np.arange(len(labels)), scores.argmax(axis=1)
        return cls(labels, ranks(scores, labels), predicted, scores[images, predicted], scores[images, labels])

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Join the predictions for consecutive images."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @property
    def is_hit(self) -> np.ndarray:
        """True where the likeliest class is the image's, booleans (n,)."""
        return self.predicted == self.labels

    def worst_mistakes(self, count: int) -> np.ndarray:
        """Return up to `count` images that are predicted wrongly, the most confident first, integers (m,)."""
        mistakes = np.flatnonzero(~self.is_hit)
        return mistakes[np.argsort(-self.confidences[mistakes], kind="stable")[:count]]

    def least_sure_hits(self, count: int) -> np.ndarray:
        """Return up to `count` images that are predicted rightly, the least confident first, integers (m,)."""
        hits = np.flatnonzero(self.is_hit)
        return hits[np.argsort(self.confidences[hits], kind="stable")[:count]]
