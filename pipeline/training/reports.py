"""Report the accuracy of a trained network, over all images and for each class."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from pipeline.files.atomic import write_atomically
from pipeline.io.batches import Batches, scores
from pipeline.training.runs import Run
from pipeline.utils.classreport import as_csv, class_scores, extremes, table

# Up to this number of classes, `report` shows all.
_SHOWN_CLASSES = 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """The files that a run has written, its histories among them, and the number of failed writes."""

    files: list[Path]
    histories: list[Path]
    failures: int


def report(run: Run, model: keras.Model, batches: Batches, result: FitResult) -> None:
    """Report precision and recall per class, the accuracy over all images, and the files written.

    Of more than 20 classes it shows the ten best and worst, and writes all to a CSV file beside each history.

    Raises:
        OSError: a write failed during training.
    """
    heading = ["averaged weights"] if run.checkpoints.average is not None else []
    if run.args.holdout is not None:
        heading.append(f"{batches.num_images:,} held-out training images")
    if heading:
        _log.info(f"{', '.join(heading)}:")
    predicted = np.concatenate([batch.argmax(axis=1) for batch in scores(model, batches)])
    labels, ids, names = batches.labels, batches.images.label_names, batches.class_names
    classes = class_scores(labels, predicted, ids, names)
    is_short = len(names) <= _SHOWN_CLASSES
    for line in table(labels, predicted, names) if is_short else extremes(classes):
        _log.info("%s", line)
    _log.info(f"accuracy: {100.0 * np.mean(predicted == labels):.2f}%")
    written, failures = list(result.files), result.failures
    # Another run may have taken the place of a history since.
    for path in [] if is_short else filter(run.owns_output, result.histories):
        try:
            write_atomically(_table_beside(path), as_csv(classes))
            written.append(_table_beside(path))
        except OSError as error:
            failures += 1
            _log.error("%s", error)
    for path in written:
        _log.info(f"written: {path}")
    if failures:
        raise OSError(f"{failures} writes failed; see the errors above")


def tables_beside(outputs: Mapping[Path, Path | None]) -> dict[Path, Path]:
    """Return the files for the tables of all classes, each with its history."""
    return {_table_beside(path): path for path in outputs.values() if path}


def _table_beside(json_path: Path) -> Path:
    return json_path.with_name(f"{json_path.stem}_classes.csv")
