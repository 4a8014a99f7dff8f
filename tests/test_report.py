"""The report on a model's predictions."""

import base64
import csv
import json
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import CHECKPOINTS, SMALL, names
from messages import assert_refused
from sklearn.metrics import confusion_matrix as independent_matrix
from stopping import BY_HAND

from pipeline.cli.scoring import report
from pipeline.evaluation import (
    Predictions,
    calibration_bins,
    confusion_matrix,
    expected_calibration_error,
    most_confused,
    write_report,
)
from pipeline.io.imageset import ArrayImages

pytest_plugins = ("browser",)

FILES = {"calibration.csv", "calibration.png", "classes.csv", "confusion.csv", "confusion.png", "index.html"}
FILES |= {"least_sure_hits.csv", "most_confused.csv", "report.json", "worst_mistakes.csv"}


def predictions(count=500, classes=10, seed=0):
    """Return random probabilities (count, classes) that favour the label, labels, and the predictions they make."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, classes, count)
    scores = draws.exponential(size=(count, classes)).astype(np.float32)
    scores[np.arange(count), labels] += 1
    scores /= scores.sum(axis=1, keepdims=True)
    return scores, labels, Predictions.of(scores, labels)


def written(folder, found, class_names, pixels_of=None):
    """Write a report on the predictions `found`; return the page and the record."""
    pixels_of = pixels_of or (lambda rows: np.zeros((len(rows), 8, 8, 3), np.uint8))
    write_report(folder, found, class_names, class_names, {"model": "m.hdf5", "rank-1": 0.5}, pixels_of)
    return (folder / "index.html").read_text(), json.loads((folder / "report.json").read_text())


def rows(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_the_calibration_error_is_that_of_the_definition():
    _, _, found = predictions()
    confidences, hits = found.confidences, found.is_hit
    expected = 0.0
    for m in range(1, 16):  # Guo et al., equations 2 and 3
        inside = [i for i in range(len(hits)) if (m - 1) / 15 < float(confidences[i]) <= m / 15]
        if inside:
            accuracy = sum(hits[i] for i in inside) / len(inside)
            confidence = sum(float(confidences[i]) for i in inside) / len(inside)
            expected += len(inside) / len(hits) * abs(accuracy - confidence)
    bins = calibration_bins(confidences, hits)
    assert expected_calibration_error(bins) == pytest.approx(expected)
    assert expected > 0.02
    assert sum(found.count for found in bins) == len(hits)


@pytest.mark.parametrize(("confidence", "number"), [(1.0, 3), (0.25, 0), (0.2500001, 1), (1.0000001, 3), (1e-9, 0)])
def test_a_bin_includes_its_upper_end(confidence, number):
    bins = calibration_bins(np.array([confidence]), np.array([True]), bins=4)
    assert [found.count for found in bins] == [int(index == number) for index in range(4)]
    assert bins[number].accuracy == 1.0
    assert bins[number - 1].accuracy is None


def test_confusions_are_counted_and_ranked():
    _, labels, found = predictions()
    matrix = confusion_matrix(labels, found.predicted, 10)
    np.testing.assert_array_equal(matrix, independent_matrix(labels, found.predicted, labels=range(10)))
    pairs = most_confused(matrix, 5)
    off = sorted((int(matrix[i, j]) for i in range(10) for j in range(10) if i != j), reverse=True)
    assert [pair.count for pair in pairs] == off[:5]
    for pair in pairs:
        assert pair.count == matrix[pair.label, pair.predicted]
        assert pair.share == pytest.approx(pair.count / (labels == pair.label).sum())
    assert most_confused(np.diag([3, 0, 2]), 5) == []


def test_the_worst_mistakes_are_the_most_confident_ones():
    scores, labels, found = predictions()
    wrong = [i for i in range(len(labels)) if scores[i].argmax() != labels[i]]
    right = [i for i in range(len(labels)) if scores[i].argmax() == labels[i]]
    assert found.worst_mistakes(7).tolist() == sorted(wrong, key=lambda i: -scores[i].max())[:7]
    assert found.least_sure_hits(7).tolist() == sorted(right, key=lambda i: scores[i].max())[:7]
    parts = [Predictions.of(scores[part], labels[part]) for part in (slice(300), slice(300, None))]
    joined = Predictions.joined(parts)
    for name, values in vars(found).items():
        np.testing.assert_array_equal(getattr(joined, name), values)


@pytest.mark.parametrize("classes", [10, 200])
def test_a_report_holds_the_same_in_every_form(tmp_path, classes):
    _, labels, found = predictions(2000, classes)
    class_names = [f"class {number}" for number in range(classes)]
    page, record = written(tmp_path / "report", found, class_names)
    assert set(names(tmp_path / "report")) == FILES
    matrix = confusion_matrix(labels, found.predicted, classes)
    assert record["confusion"] == matrix.tolist()
    assert rows(tmp_path / "report" / "confusion.csv") == [
        ["class", *class_names],
        *([name, *map(str, row)] for name, row in zip(class_names, matrix.tolist(), strict=True)),
    ]
    for table in ("most_confused", "worst_mistakes", "least_sure_hits", "calibration"):
        header, *lines = rows(tmp_path / "report" / f"{table}.csv")
        assert header == list(record[table][0])
        assert lines == [["" if value is None else str(value) for value in row.values()] for row in record[table]]
    worst = record["worst_mistakes"][0]
    assert worst["name"] == class_names[labels[worst["image"]]]
    assert f"{100 * record['expected_calibration_error']:.2f}&nbsp;%" in page
    recalls = [row["recall"] for row in record["classes"]]
    assert recalls == pytest.approx((np.diag(matrix) / np.maximum(matrix.sum(axis=1), 1)).tolist())
    for picture in ("confusion", "calibration"):
        drawn = cv2.imread(str(tmp_path / "report" / f"{picture}.png"))
        assert drawn.std() > 10


def test_names_are_shown_as_text_whatever_they_hold(tmp_path, recwarn):
    hostile = [
        "<script>alert(1)</script>",
        "a $x^2$ b",
        "line\nbreak\x1b[31m",
        '"><img src=x onerror=y>',
        "日本",
        "日本",
    ]
    _, _, found = predictions(200, len(hostile))
    page, _ = written(tmp_path / "report", found, hostile)
    assert page.count("<script") == 1
    assert "<img src=x" not in page
    assert r"line\nbreak\x1b[31m" in page
    assert rows(tmp_path / "report" / "confusion.csv")[0][3] == r"line\nbreak\x1b[31m"
    assert len(rows(tmp_path / "report" / "confusion.csv")[0]) == 7  # two classes of one name
    assert not recwarn.list


def test_classes_without_images_come_last_and_have_no_accuracy(tmp_path):
    scores = np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]
    page, record = written(tmp_path, Predictions.of(scores, np.array([0, 0, 0, 2])), list("abc"))
    order = re.findall(r"<td>\d</td><td>([abc])</td><td>(.*?)</td>", page)
    assert order == [("a", "100.00&nbsp;%"), ("c", "50.00&nbsp;%"), ("b", "-")]
    assert [row["support"] for row in record["classes"]] == [3, 0, 1]
    assert all(type(row["support"]) is int for row in record["classes"])


def test_perfect_predictions_have_no_mistakes(tmp_path):
    labels = np.arange(4)
    page, record = written(tmp_path, Predictions.of(np.eye(4, dtype=np.float32), labels), list("abcd"))
    assert record["worst_mistakes"] == record["most_confused"] == []
    assert record["expected_calibration_error"] == 0
    assert "There are none" in page
    assert (tmp_path / "worst_mistakes.csv").read_text() == ""


@pytest.mark.parametrize("colours", ["RGB", "BGR"])
def test_the_sheets_show_the_images_in_their_colours(tmp_path, colours):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 8, 8, 3), np.uint8)
    _, labels, found = predictions(40, 3)
    images = ArrayImages(pixels, labels, ("a", "b", "c"))
    report(
        tmp_path / "r", found, SimpleNamespace(batches=SimpleNamespace(images=images), colours=colours), {"model": ""}
    )
    shown = re.findall(
        r'<img src="data:image/png;base64,([^"]+)" alt="image (\d+): ', (tmp_path / "r" / "index.html").read_text()
    )
    assert len(shown) == min(24, (~found.is_hit).sum()) + min(24, found.is_hit.sum())
    for data, number in shown:
        decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)  # BGR
        expected = pixels[int(number)]
        np.testing.assert_array_equal(decoded, expected if colours == "BGR" else expected[..., ::-1])


def test_rank_accuracy_reports_what_it_prints(command, tmp_path, browser):
    command(BY_HAND, *SMALL, "--epochs", "1", "--no_page")
    model = ("--model", tmp_path / CHECKPOINTS / "epoch_1.hdf5")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "report.json").write_text('{"mine": 1}')
    (tmp_path / "full" / "notes.txt").write_text("")
    assert_refused(command("rank_accuracy.py", *model, "--report", "full", code=2), "full", "--report")
    assert_refused(command("rank_accuracy.py", *model, "--report", "full/notes.txt", code=2), "notes.txt", "--report")
    inside = command("rank_accuracy.py", *model, "--report", "report", "--json", "report/report.json", code=2)
    assert_refused(inside, "--json", "--report")
    for _ in range(2):  # a report may replace one, even one that wasn't finished
        done = command("rank_accuracy.py", *model, "--report", "report")
        (tmp_path / "report" / "index.html").rename(tmp_path / "page.html")
    (tmp_path / "page.html").rename(tmp_path / "report" / "index.html")
    record = json.loads((tmp_path / "report" / "report.json").read_text())
    assert f"rank-1: {100 * record['rank-1']:.2f}%" in done.stdout
    assert record["rank-1"] == pytest.approx(np.trace(record["confusion"]) / np.sum(record["confusion"]))
    assert record["images"] == np.sum(record["confusion"]) == 360
    browser.errors.clear()
    browser.resize(360, 900, "dark")
    browser.open(tmp_path / "report" / "index.html")
    pictures = "[...document.images].map((image) => image.naturalWidth)"
    widths = browser.evaluate(pictures)
    assert len(widths) == 2 + len(record["worst_mistakes"]) + len(record["least_sure_hits"])
    assert min(widths) > 0
    assert browser.evaluate("document.documentElement.scrollWidth") == 360
    assert browser.errors == []
