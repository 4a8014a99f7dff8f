"""Write a report on a network's predictions: a page, pictures, and the same as CSV and JSON."""

import base64
import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import InputError
from pipeline.evaluation.calibration import calibration_bins, expected_calibration_error
from pipeline.evaluation.confusion import Confusion, confusion_matrix, most_confused
from pipeline.evaluation.pictures import calibration_png, confusion_png
from pipeline.evaluation.predictions import Predictions
from pipeline.files.atomic import check_folder, write_atomically
from pipeline.files.regular import read_regular
from pipeline.pages import page
from pipeline.utils.classreport import as_csv, class_scores
from pipeline.utils.text import printable

_PAGE, _RECORD = "index.html", "report.json"
# Pairs of classes, and images on each sheet.
_PAIRS, _IMAGES = 20, 24
_MAX_RECORD = 1 << 28  # bytes; that of 1,000 classes has 6e6
_SHEETS = ("worst_mistakes", "least_sure_hits")


def check_report_folder(folder: Path) -> None:
    """Raise `InputError` unless a report can be written to `folder`: a new or empty folder, or one with a report."""
    check_folder(folder if folder.is_dir() else folder.parent)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"`report` {folder} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not _is_report(folder / _RECORD):
        raise InputError(f"`report` {folder} holds other files than a report; name a new folder")


def _is_report(record: Path) -> bool:
    """Return whether the file `record` was written by this module."""
    try:
        content = json.loads(read_regular(record, _MAX_RECORD))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"expected_calibration_error", "confusion"} <= content.keys()


def write_report(
    folder: Path,
    predictions: Predictions,
    ids: Sequence[str],
    names: Sequence[str],
    facts: Mapping[str, object],
    pixels_of: Callable[[np.ndarray], np.ndarray],
) -> list[Path]:
    """Write the report on `predictions` to `folder`; return the files.

    Args:
        ids, names: the classes' names, by the source and readable, in the order of their labels.
        facts: model, split and accuracies, by name, for the page and the record.
        pixels_of: returns the images at the given numbers (m,), uint8 RGB (m, height, width, 3).

    Raises:
        OSError: a file can't be written.
    """
    ids, names = (list(map(printable, texts)) for texts in (ids, names))
    scores = class_scores(predictions.labels, predictions.predicted, ids, names)
    matrix = confusion_matrix(predictions.labels, predictions.predicted, len(names))
    pairs = most_confused(matrix, _PAIRS)
    bins = calibration_bins(predictions.confidences, predictions.is_hit)
    error = expected_calibration_error(bins)
    tables = {
        "most_confused": [_named(pair, names) for pair in pairs],
        "calibration": [asdict(found) for found in bins],
        "worst_mistakes": _judged(predictions, predictions.worst_mistakes(_IMAGES), names),
        "least_sure_hits": _judged(predictions, predictions.least_sure_hits(_IMAGES), names),
    }
    pictures = {"confusion": confusion_png(matrix, pairs, names), "calibration": calibration_png(bins, error)}
    record = dict(facts) | {"expected_calibration_error": error, "classes": [asdict(score) for score in scores]}
    record |= {"confusion": matrix.tolist()} | tables
    html = page(
        "report.html.j2",
        facts=facts,
        error=error,
        scores=sorted(scores, key=lambda score: (not score.support, score.recall, score.f1)),
        tables=tables,
        thumbnails={row["image"]: _thumbnail(pixels_of, row["image"]) for name in _SHEETS for row in tables[name]},
        pictures={name: _address(picture) for name, picture in pictures.items()},
    )
    counts = [["class", *names], *([name, *row] for name, row in zip(names, matrix.tolist(), strict=True))]
    # The record comes first: a folder that holds it may be written again after a failure.
    files = {_RECORD: (json.dumps(record, indent=1) + "\n").encode()}
    files |= {f"{name}.png": picture for name, picture in pictures.items()}
    files |= {f"{name}.csv": _csv([*rows[:1], *(row.values() for row in rows)]) for name, rows in tables.items()}
    files |= {"classes.csv": as_csv(scores), "confusion.csv": _csv(counts), _PAGE: html.encode()}
    for name, content in files.items():
        write_atomically(folder / name, content)
    return [folder / name for name in files]


def _named(pair: Confusion, names: Sequence[str]) -> dict[str, object]:
    """Return the values of `pair`, with the names of its classes."""
    return asdict(pair) | {"name": names[pair.label], "predicted_name": names[pair.predicted]}


def _judged(predictions: Predictions, images: np.ndarray, names: Sequence[str]) -> list[dict[str, object]]:
    """Return what is predicted for `images`, their numbers (m,)."""
    return [
        {
            "image": image,
            "label": (label := int(predictions.labels[image])),
            "name": names[label],
            "predicted": (predicted := int(predictions.predicted[image])),
            "predicted_name": names[predicted],
            "confidence": float(predictions.confidences[image]),
            "probability": float(predictions.probabilities[image]),
        }
        for image in images.tolist()
    ]


def _csv(rows: Iterable[Iterable[object]]) -> bytes:
    """Return `rows`, the first of them the names of the columns, as CSV in UTF-8."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _thumbnail(pixels_of: Callable[[np.ndarray], np.ndarray], image: int) -> str:
    """Return the image of a number as a picture inside the page."""
    _, encoded = cv2.imencode(".png", pixels_of(np.array([image]))[0][..., ::-1])  # OpenCV takes BGR
    return _address(encoded.tobytes())


def _address(png: bytes) -> str:
    """Return the address of a picture that is inside the page."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
