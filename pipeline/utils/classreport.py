"""Precision and recall of each class."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
from sklearn.metrics import classification_report, precision_recall_fscore_support

_SHOWN = 10


@dataclass(frozen=True)
class ClassScore:
    """How well a class is recognized: precision, recall and their harmonic mean, each from 0 to 1.

    Args:
        id: the source's name of the class, such as a WordNet id.
        support: number of images of the class.
    """

    label: int
    id: str
    name: str
    precision: float
    recall: float
    f1: float
    support: int


def class_scores(
    labels: np.ndarray, predicted: np.ndarray, ids: Sequence[str], names: Sequence[str]
) -> list[ClassScore]:
    """Score each class.

    Args:
        labels, predicted: integers (n,), 0 to classes - 1.
        ids, names: the classes' names, in the order of their labels.
    """
    columns = precision_recall_fscore_support(labels, predicted, labels=range(len(names)), zero_division=0)
    *fractions, supports = (column.tolist() for column in columns)
    rows = enumerate(zip(ids, names, *fractions, map(int, supports), strict=True))  # scikit-learn may count in floats
    return [ClassScore(label, *row) for label, row in rows]


def table(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> Iterator[str]:
    """Yield the lines of scikit-learn's report of all classes, for arguments as in `class_scores`."""
    report = classification_report(
        labels, predicted, labels=range(len(names)), target_names=names, digits=4, zero_division=0
    )
    yield from report.split("\n")


def extremes(scores: Sequence[ClassScore]) -> Iterator[str]:
    """Yield the lines of two tables: the ten classes of highest and of lowest recall, of those that have images."""
    ranked = sorted((score for score in scores if score.support), key=lambda score: (-score.recall, -score.f1))
    best, worst = ranked[:_SHOWN], ranked[: -_SHOWN - 1 : -1]
    width = max(len(score.name) for score in (*best, *worst))
    for which, shown in {"best": best, "worst": worst}.items():
        yield f"the {len(shown)} {which} of {len(scores):,} classes:"
        yield f"{'':{width}}  precision     recall   f1-score    support"
        for score in shown:
            numbers = "".join(f"{value:11.4f}" for value in (score.precision, score.recall, score.f1))
            yield f"{score.name:>{width}}{numbers}{score.support:11}"
        yield ""


def as_csv(scores: Sequence[ClassScore]) -> bytes:
    """Return `scores` as CSV in UTF-8, with a line of column names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(ClassScore))
    writer.writerows(map(astuple, scores))
    return text.getvalue().encode()
