"""Precision and recall of each class, in a table and in a file."""

import csv
import io
import json

import keras
import numpy as np
import pytest

from pipeline import training
from pipeline.callbacks import TrainingMonitor
from pipeline.data import ArraySource
from pipeline.nn.conv import ResNet
from pipeline.utils.classreport import as_csv, class_scores, extremes, table

CLASSES = 30
NAMES = [f"name {number}" for number in range(CLASSES)]
IDS = [f"n{number:08}" for number in range(CLASSES)]


@pytest.fixture(scope="module")
def predictions():
    """Return labels and predictions; of class k, k in 30 are right, but class 29 has no images."""
    labels = np.repeat(np.arange(CLASSES - 1), 30)
    predicted = np.concatenate([np.where(np.arange(30) < label, label, label - 1) for label in range(CLASSES - 1)])
    return labels, predicted.clip(0)


def test_scores_are_those_counted_by_hand(predictions):
    labels, predicted = predictions
    for score in class_scores(labels, predicted, IDS, NAMES):
        right = int(np.sum((labels == score.label) & (predicted == score.label)))
        guessed, support = int(np.sum(predicted == score.label)), int(np.sum(labels == score.label))
        precision, recall = right / max(guessed, 1), right / max(support, 1)
        expected = (precision, recall, 2 * precision * recall / ((precision + recall) or 1))
        assert (score.id, score.name, score.support) == (IDS[score.label], NAMES[score.label], support)
        assert (score.precision, score.recall, score.f1) == pytest.approx(expected)


def test_the_ten_best_and_worst_classes_are_shown_and_all_are_in_the_file(predictions):
    scores = class_scores(*predictions, IDS, NAMES)
    lines = list(extremes(scores))
    shown = [int(line.split()[1]) for line in lines if line.strip().startswith("name ")]
    # Class 0 is always right, because nothing is below it; class 29 has no images.
    assert shown == [0, *range(28, 19, -1), *range(1, 11)]
    assert all("30 classes" in line for line in lines if line.startswith("the "))
    rows = list(csv.DictReader(io.StringIO(as_csv(scores).decode())))
    assert [row["id"] for row in rows] == IDS
    assert [float(row["recall"]) for row in rows] == [score.recall for score in scores]
    awkward = class_scores(*predictions, IDS, [f'crane, "{number}"' for number in range(CLASSES)])
    assert next(csv.DictReader(io.StringIO(as_csv(awkward).decode())))["name"] == 'crane, "0"'


def test_few_classes_are_all_in_the_table(predictions):
    text = "\n".join(table(*predictions, NAMES))
    assert all(name in text for name in (*NAMES, "accuracy"))


def test_a_run_on_many_classes_writes_the_file_beside_its_history(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8)
    y = np.arange(60) % CLASSES
    data = ArraySource((x, y), (x, y), NAMES)
    train, val = data.train_batches(30), data.val_batches(25)
    model = ResNet.build(8, 8, 3, CLASSES, (1,), (4, 8))
    model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy", metrics=["accuracy"])
    (tmp_path / "curves_classes.csv").write_text("of another run")
    with caplog.at_level("INFO"):
        run = training.Run.open("c", epochs=1)
        result = training.fit(run, model, data, train, val, [TrainingMonitor("curves.png", "curves.json")])
        training.report(run, model, val, result)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "curves_classes.csv").read_text())))
    assert [row["name"] for row in rows] == NAMES
    assert sum(int(row["support"]) for row in rows) == 60
    assert "written: curves_classes.csv" in caplog.text
    assert "the 10 best of 30 classes" in caplog.text
    # What another run wrote is kept.
    assert (tmp_path / "earlier-1" / "curves_classes.csv").read_text() == "of another run"
    accuracy = json.loads((tmp_path / "curves.json").read_text())["val_accuracy"][0]
    recalled = sum(float(row["recall"]) * int(row["support"]) for row in rows) / 60
    assert recalled == pytest.approx(accuracy, abs=1e-4)
