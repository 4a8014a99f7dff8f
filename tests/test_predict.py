"""Classifying photographs from a checkpoint alone."""

import csv
import io
import json
import shutil

import cv2
import keras
import numpy as np
import pytest
from conftest import ROOT, load_cifar10
from imagenetlayout import picture, unusual
from messages import assert_names, assert_refused
from PIL import Image

from pipeline.preprocessing.view import central_view

PREDICT = "pipeline/predict.py"


@pytest.fixture
def model(straight):
    """Return a network trained on digits."""
    return straight() / "epoch_2.hdf5"


@pytest.fixture
def predict(command, tmp_path, model):
    """Classify images in an empty folder that holds only a copy of the model."""
    shutil.copy(model, tmp_path / "model.hdf5")
    return lambda *words, code=0: command(PREDICT, *words, "--model", "model.hdf5", code=code)


def test_images_of_the_network_s_size_get_the_scores_of_stock_keras(predict, model, tmp_path):
    digits = load_cifar10("digits")
    (tmp_path / "many").mkdir()
    for number, image in enumerate(digits.test_images[:40]):
        cv2.imwrite(str(tmp_path / "many" / f"{number:02}.png"), image[..., ::-1])
    done = predict("many", "--json", "--top", "3")
    rows = list(map(json.loads, done.stdout.splitlines()))
    assert [row["image"] for row in rows] == [f"many/{number:02}.png" for number in range(40)]
    scores = keras.models.load_model(model, compile=False).predict(
        digits.test_images[:40] - load_cifar10("digits", limit=128).mean_image(), verbose=0
    )
    for row, expected in zip(rows, scores, strict=True):
        best = np.argsort(-expected, kind="stable")[:3]
        assert [entry["class"] for entry in row["classes"]] == [digits.classes[label] for label in best]
        np.testing.assert_allclose([entry["probability"] for entry in row["classes"]], expected[best], atol=1e-5)


def test_the_classes_of_an_image_are_printed_as_lines_or_as_a_table(predict, tmp_path):
    cv2.imwrite(str(tmp_path / "a,b.png"), picture(1, 50, 70))
    lines = predict("a,b.png").stdout.splitlines()
    assert lines[0] == "a,b.png"
    assert len(lines) == 6
    rows = list(csv.DictReader(io.StringIO(predict("a,b.png", "--csv", "--top", "99").stdout)))
    assert [(row["image"], row["rank"]) for row in rows] == [("a,b.png", str(rank)) for rank in range(1, 11)]
    assert sum(float(row["probability"]) for row in rows) == pytest.approx(1, abs=1e-5)
    assert lines[1].split() == [f"{100 * float(rows[0]['probability']):.2f}", "%", rows[0]["class"]]


def test_every_kind_of_image_is_seen_right_or_refused_and_the_others_classified(predict, tmp_path):
    pixels = picture(7, 48, 64)
    upright = Image.fromarray(pixels[..., ::-1].copy())
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    with_alpha = np.dstack([pixels, np.full((48, 64), 200, np.uint8)])
    cv2.imwrite(str(tmp_path / "alpha.png"), with_alpha)
    cv2.imwrite(str(tmp_path / "sixteen.png"), pixels.astype(np.uint16) * 257)
    rows = [
        json.loads(line)
        for line in predict("upright.png", "turned.png", "alpha.png", "sixteen.png", "--json").stdout.splitlines()
    ]
    assert len({json.dumps(row["classes"]) for row in rows}) == 1
    for number, content in enumerate(unusual()):
        (tmp_path / f"odd-{number}").write_bytes(content)
    predict(*(f"odd-{number}" for number in range(5)))

    whole = (tmp_path / "upright.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:-30])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "bomb.png").write_bytes(whole[:16] + (60_000).to_bytes(4, "big") * 2 + whole[24:])
    done = predict("cut.png", "upright.png", "text.jpg", "nothing.png", "bomb.png", "turned.png", "--top", "1", code=2)
    assert [line for line in done.stdout.splitlines() if not line.startswith(" ")] == ["upright.png", "turned.png"]
    refused = done.stderr.splitlines()
    assert len(refused) == 4
    for line, parts in zip(
        refused, (["cut.png"], ["text.jpg"], ["nothing.png", "No such file"], ["bomb.png"]), strict=True
    ):
        assert_names(line, *parts)


def test_what_a_model_lacks_is_one_line(command, model, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture(1, 50, 70))
    assert_refused(command(PREDICT, "a.png", "-m", "a.png", code=2), "a.png", "not a checkpoint")
    assert_refused(command(PREDICT, "a.png", "-m", "none.hdf5", code=2), "none.hdf5", "No such file")
    for words, part in ((("--top", "0"), "--top"), (("--json", "--csv"), "--csv")):
        assert_refused(command(PREDICT, "a.png", "-m", model, *words, code=2), part)


def test_nothing_but_the_classes_is_printed(process, model, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture(1, 50, 70))
    done = process(PREDICT, "a.png", "-m", model, "--top", "1", PYTHONPATH=str(ROOT))
    assert (done.stderr, done.stdout.count("\n")) == ("", 2)


def test_the_central_view_keeps_the_aspect_ratio():
    image = picture(3, 60, 100)
    np.testing.assert_array_equal(central_view(image, 60), image[:, 20:80])
    view = central_view(cv2.resize(image, (200, 120), interpolation=cv2.INTER_NEAREST), 30, ratio=0.5)
    np.testing.assert_array_equal(view, image[15:45, 35:65])
