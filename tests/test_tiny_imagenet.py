"""Training and ranking on Tiny ImageNet."""

import json
import re
import shutil

import cv2
import h5py
import keras
import numpy as np
import pytest
from conftest import assert_identical, assert_same_curves, write_checkpoint
from messages import (
    MISSING,
    assert_names,
    assert_refused,
    naming,
)
from tinylayout import IDS, SMALL

from config import tiny_imagenet_config as config
from pipeline.cli.recipe import Recipe
from pipeline.data import TinyImageNet
from pipeline.data.textfiles import write_mean
from pipeline.nn.conv import ResNet


def test_training_stops_resumes_and_is_ranked(command, built, tmp_path):
    options = ("--data", built, *SMALL)
    command("train.py", *options, "--epochs", "3", "--every", "1", "-c", "straight", "-o", "straight")
    command("train.py", *options, "--epochs", "3", "--every", "1", "--stop_after", "1", "-c", "parts", "-o", "parts")
    done = command("train.py", "-c", "parts", "--model", "latest", "--workers", "1")
    assert_identical(tmp_path / "straight" / "epoch_3.hdf5", tmp_path / "parts" / "epoch_3.hdf5")
    assert_same_curves(tmp_path / "straight", tmp_path / "parts")
    assert "bee, wasp" in done.stdout
    history = json.loads((tmp_path / "parts" / "train.json").read_text())
    assert history["run"]["arguments"]["nesterov"] is True

    command("train_decay.py", *options, "--epochs", "2", "-m", "decay.hdf5")
    for model in ("decay.hdf5", "parts/epoch_3.hdf5"):
        # 150 test images in batches of 64: every one counts, including the short last batch.
        done = command("rank_accuracy.py", "--data", built, "-m", model, "--json", "rank.json")
        assert "images: 150\n" in done.stdout
        result = json.loads((tmp_path / "rank.json").read_text())
        assert f"rank-1: {100 * result['rank-1']:.2f}%" in done.stdout
        # With three classes, the right one is always among the best five.
        assert result["rank-5"] == 1.0
    done = command("rank_accuracy.py", "-m", "decay.hdf5", "--split", "val", "--batch_size", "7")
    assert_names(done.stdout, r"split: val\b", r"images: 15\n")


def test_the_accuracy_is_that_of_the_predictions(command, built, tmp_path):
    command("train.py", "--data", built, *SMALL, "--epochs", "2", "--every", "1")
    outputs = ("--submission", "out/submission.txt", "--json", "out/rank.json")
    done = command("rank_accuracy.py", "--data", built, "--tta", "flip", *outputs)
    assert "model: output/train/checkpoints/epoch_2.hdf5" in done.stdout
    model = keras.models.load_model(tmp_path / "output" / "train" / "checkpoints" / "epoch_2.hdf5", compile=False)
    mean = json.loads((built / "hdf5" / "mean.json").read_text())
    bgr = np.float32([mean["B"], mean["G"], mean["R"]])
    with h5py.File(built / "hdf5" / "test.hdf5") as file:
        scores, mirrored = (
            model.predict(images - bgr, verbose=0) for images in (file["images"][()], file["images"][()][:, :, ::-1])
        )
        labels = file["labels"][()]
    result = json.loads((tmp_path / "out" / "rank.json").read_text())
    assert result["rank-1"] == pytest.approx(np.mean(scores.argmax(axis=1) == labels))
    # The result with mirrored images has its own line.
    with_flip = np.mean((scores + mirrored).argmax(axis=1) == labels)
    assert result["tta flip"]["rank-1"] == pytest.approx(with_flip)
    assert f"\nrank-1: {100 * result['rank-1']:.2f}%\n" in done.stdout
    assert re.search(rf"\nrank-1, .*: {100 * with_flip:.2f}%\n", done.stdout)
    lines = (tmp_path / "out" / "submission.txt").read_text().splitlines()
    paths = sorted((built / "test" / "images").iterdir())
    predicted = model.predict(np.stack([cv2.imread(str(path)) for path in paths]) - bgr, verbose=0).argmax(axis=1)
    assert lines == [f"{path.name} {sorted(IDS)[label]}" for path, label in zip(paths, predicted, strict=True)]


def source_of(folder, **options):
    return TinyImageNet(config.files(str(folder)), **options)


def test_images_held_out_of_training_are_validated_on_and_no_others(built):
    whole, part = source_of(built), source_of(built, holdout=7)
    count = len(whole.train)
    assert (len(part.train), len(part.val), len(part.whole("test"))) == (count - 7, 7, len(whole.whole("test")))
    assert sorted(np.concatenate([part.train._rows, part.val._rows]).tolist()) == list(range(count))
    few = source_of(built, holdout=7, limit=10)
    assert (len(few.train), len(few.val)) == (10, 7)
    np.testing.assert_array_equal(few.val._rows, part.val._rows)
    # A limit alone selects the same images of each split.
    assert (len(source_of(built, limit=10).train), len(source_of(built, limit=10).val)) == (10, 10)
    with pytest.raises(ValueError, match=naming(f"`holdout` {count}", rf"{count}\D+{count}")):
        source_of(built, holdout=count).train_batches(5)
    with pytest.raises(ValueError, match=naming("`limit`", r"\b0\b")):
        source_of(built, limit=0)


def test_the_digest_is_that_of_the_files_and_the_mean_whatever_is_chosen(built, tmp_path):
    digest = source_of(built).digest()
    assert digest == source_of(built, limit=7).digest()
    assert len({source_of(built, holdout=count).digest() for count in (7, 8)} - {digest}) == 1
    write_mean(tmp_path / "mean.json", dict.fromkeys("RGB", 1.0))
    assert TinyImageNet(config.files(str(built)) | {"mean": tmp_path / "mean.json"}).digest() != digest


MIXED = {"cutout": 16, "mixup": 0.2, "cutmix": 1.0, "label_smoothing": 0.1}


@pytest.mark.parametrize("recipe", [config.PUBLISHED, config.MODERN, config.MODERN | MIXED])
def test_the_first_batches_of_an_epoch_are_the_same_after_a_resume(built, recipe):
    made = Recipe.of(recipe)
    varied = {"aug": made.augmentation, "mixing": made.mixing, "seed": 42}
    straight, resumed = (source_of(built).train_batches(5, workers=workers, **varied) for workers in (1, 4))
    for epoch in range(4):
        straight.set_epoch(epoch)
        batches = list(straight)
    resumed.set_epoch(3)
    for ours, theirs in zip(resumed, batches, strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_rank_accuracy_says_what_it_can_not_use(command, built, raw, tmp_path):
    done = command("rank_accuracy.py", "--data", built, code=2)
    assert_refused(done, "output/resnet_tinyimagenet_decay.hdf5", "output/train/checkpoints|checkpoint")
    done = command("rank_accuracy.py", "--data", built, "-m", "nothing.hdf5", code=2)
    assert_refused(done, "nothing.hdf5", "No such file")
    for dataset in ("tiny_imagenet", "imagenet"):
        network = {**config.IMAGES, "classes": 5, "stages": [1], "filters": [4, 8], "dataset": dataset}
        model = ResNet.build(**network)
        model.compile(keras.optimizers.SGD(0.1, name="sgd"), "mse")
        path = tmp_path / "other.hdf5"
        write_checkpoint(path, model)
        done = command("rank_accuracy.py", "--data", built, "-m", path, code=2)
        assert_refused(done, "other.hdf5", "cifar10, tiny_imagenet", "--dataset")
        done = command("rank_accuracy.py", "--data", built, "-m", path, "--dataset", "tiny_imagenet", code=2)
        assert_refused(done, "other.hdf5", "64x64x3", r"\b5 classes", r"\b3 classes")
    command("train.py", "--data", built, *SMALL, "--epochs", "1")
    done = command("rank_accuracy.py", "--data", raw, "-m", "output/train/checkpoints/epoch_1.hdf5", code=2)
    assert_refused(done, "test.hdf5", MISSING)
    for output in ("--json", "--submission"):
        done = command("rank_accuracy.py", "--data", built, output, tmp_path, code=2)
        assert_refused(done, rf"{tmp_path}\b(?!/)", "folder|directory")
    shutil.copytree(built / "hdf5", raw / "hdf5")
    shutil.rmtree(raw / "test")
    done = command("rank_accuracy.py", "--data", raw, "--submission", "s.txt", code=2)
    assert_refused(done, "test/images", MISSING)
    (raw / "hdf5" / "mean.json").write_text('{"R": 1, "G": 2, "B": 3}')
    done = command("train.py", "--data", raw, "--model", "latest", "--epochs", "2", code=2)
    assert_refused(done, f"{raw}", rf"trained on \({built}\)", "--data")


def test_what_the_mean_doesn_t_depend_on_is_not_needed_to_score_the_test_set(command, built, tmp_path, monkeypatch):
    command("train.py", "--data", built, *SMALL, "--epochs", "1", "--limit", "12")
    (tmp_path / "home" / "hdf5").mkdir(parents=True)
    for name in ("test.hdf5", "mean.json"):
        shutil.copy(built / "hdf5" / name, tmp_path / "home" / "hdf5")
    shutil.copytree(built / "test", tmp_path / "home" / "test")
    # From the environment, with ~ in it.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TINY_IMAGENET_DIR", "~/home")
    command("rank_accuracy.py", "--submission", "submission.txt")
    done = command("rank_accuracy.py", "--split", "val", code=2)
    assert_refused(done, "val.hdf5", MISSING)
    done = command("rank_accuracy.py", "--dataset", "cifar10", code=2)
    assert_refused(done, "--dataset cifar10", "output/train/checkpoints/epoch_1.hdf5", "tiny_imagenet")
    monkeypatch.setenv("TINY_IMAGENET_DIR", "~no_such_user/home")
    assert_refused(command("rank_accuracy.py", code=2), "TINY_IMAGENET_DIR", "'~no_such_user/home'")
