"""Recipes: values from the command line to the checkpoint, and exact resume."""

import json
import os
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from changes import state
from conftest import ROOT, SMALL, arrays, assert_identical, assert_same_curves, load_cifar10
from forge import forge
from messages import assert_names, assert_refused

from config import cifar10_config
from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.listing import list_checkpoints
from pipeline.cli.flags import RECIPE, recipe_values, rows

NAMES = [flag.name for flag in rows(cifar10_config) if flag.scope == RECIPE]
PUBLISHED, MODERN = ({name: recipe_values(table)[name] for name in NAMES} for table in cifar10_config.RECIPES.values())
BY_HAND, DECAY = "resnet_cifar10.py", "resnet_cifar10_decay.py"
# Every piece at once; the warm-up ends inside the run.
EVERYTHING = (
    "--recipe", "modern", "--warmup_epochs", "2", "--rotation_range", "5", "--cutout", "8", "--mixup", "0.2",
    "--cutmix", "1", "--label_smoothing", "0.1", "--ema", "0.9",
)  # fmt: skip
RUN = (*SMALL, *EVERYTHING, "--epochs", "3", "--every", "1", "--holdout", "128")


def settings(folder, script="resnet_cifar10_decay"):
    return json.loads((folder / "output" / f"{script}.json").read_text())["run"]["arguments"]


def test_a_flag_wins_over_the_recipe_and_the_values_are_printed_and_stored(command, tmp_path):
    done = command(DECAY, *SMALL, "--epochs", "2", "--recipe", "modern", "--pad_crop", "2", "--no_nesterov")
    assert_names(
        done.stdout,
        "recipe modern: .*schedule cosine, warmup_epochs 1, reg 0.00025, pad_crop 2, flip alternate",
        "nesterov, rotation_range, zoom_range, width_shift_range, height_shift_range, shear_range, cutout, mixup, "
        "cutmix, label_smoothing, ema\n",
    )
    stored = settings(tmp_path)
    assert stored == read_checkpoint(tmp_path / "output" / "resnet_cifar10.hdf5").history["run"]["arguments"]
    assert {name: stored[name] for name in NAMES} == MODERN | {"pad_crop": 2, "nesterov": False}
    assert stored["recipe"] == "modern"
    # On a resume all values hold, given again or not; another recipe is refused.
    done = command(DECAY, "--resume", "--pad_crop", "2", "--recipe", "modern")
    assert_names(done.stdout, r"pad_crop 2\b")
    done = command(DECAY, "--resume", "--recipe", "published", code=2)
    assert_refused(done, "--recipe published", "--recipe modern")
    done = command(DECAY, "--resume", "--nesterov", code=2)
    assert_refused(done, "--nesterov", "--no_nesterov")
    done = command(DECAY, "--resume", "--cutout", "8", code=2)
    assert_refused(done, "--cutout 8", "--cutout 0")


def test_published_is_the_default_and_by_hand_the_rate_stays(command, tmp_path):
    command(BY_HAND, *SMALL, "--epochs", "1", "-c", "c")
    stored = settings(tmp_path, "resnet_cifar10")
    assert {name: stored[name] for name in NAMES} == PUBLISHED | {"schedule": "constant"}
    # The last epoch may change if the rate doesn't decay.
    command(BY_HAND, "-c", "c", "-m", "latest", "--epochs", "2")
    command(BY_HAND, *SMALL, "--epochs", "2", "--recipe", "modern", "--schedule", "cosine", "-c", "d")
    stored = settings(tmp_path, "resnet_cifar10")
    assert {name: stored[name] for name in NAMES} == MODERN
    done = command(BY_HAND, "-c", "d", "-m", "latest", "--epochs", "3", code=2)
    assert_refused(done, "--epochs 3", "--epochs 2")


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (("--warmup_epochs", "2"), ["--warmup_epochs 2", "--epochs 1"]),
        (("--recipe", "modern", "--momentum", "0"), ["--momentum 0", "--nesterov"]),
        (("--pad_crop", "32"), ["--pad_crop 32", r"\b31\b", "32x32"]),
        (("--cutout", "33"), ["--cutout 33", r"\b32\b", "32x32"]),
        (("--holdout", "1437"), [r"--holdout 1437\D+1437\b"]),
        (("--holdout", "1430"), [r"\b7\b", r"\b32\b"]),
    ],
)
def test_values_that_do_not_fit_each_other_are_one_line(command, tmp_path, flags, parts):
    assert_refused(command(DECAY, *SMALL, "--epochs", "1", *flags, code=2), *parts)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_checkpoint_from_before_there_were_recipes_is_of_the_published_one(command, tmp_path):
    command(DECAY, *SMALL, "--epochs", "2", "--stop_after", "1", "--every", "1")

    def forget(content):
        for name in ("recipe", "holdout", *NAMES):
            if name not in ("nesterov", "reg"):
                del content["history"]["run"]["arguments"][name]

    forge(tmp_path / "output" / "resnet_cifar10" / "epoch_1.hdf5", state(forget))
    done = command(DECAY, "--resume", "--pad_crop", "4", code=2)
    assert_refused(done, "--pad_crop 4", "--pad_crop 0")
    done = command(DECAY, "--resume")
    assert "epoch 2/2" in done.stdout
    stored = settings(tmp_path)
    assert {name: stored[name] for name in NAMES} == PUBLISHED


def test_held_out_images_are_validated_on_and_the_test_images_are_not_touched(command, tmp_path):
    whole = load_cifar10("digits")
    part = load_cifar10("digits", holdout=300)
    assert (len(part.train_labels), len(part.test_labels)) == (len(whole.train_labels) - 300, 300)
    together = np.concatenate([part.train_images, part.test_images]).reshape(len(whole.train_labels), -1)
    assert sorted(map(bytes, together)) == sorted(map(bytes, whole.train_images.reshape(together.shape)))
    # The held-out images don't depend on the limit.
    few = load_cifar10("digits", limit=64, holdout=300)
    assert len(few.train_labels) == 64
    np.testing.assert_array_equal(few.test_images, part.test_images)
    done = command(DECAY, *SMALL, "--epochs", "1", "--holdout", "100")
    # At the start, and above the report.
    assert_names(done.stdout.partition("\nepoch 1/")[0], r"\b128\b.*\b100\b")
    assert_names(done.stdout.partition("\nepoch 1/")[2], r"\b100\b.*\bimages\b")
    assert settings(tmp_path)["holdout"] == 100


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Return the folder of a run with every piece that never stopped, on the given backend."""
    runs = {}

    def run(backend):
        if backend not in runs:
            runs[backend] = tmp_path_factory.mktemp(backend)
            train(runs[backend], backend, *RUN)
        return runs[backend]

    return run


def train(folder, backend, *flags, stop=("none", 0), code=0):
    """Run the script in `folder`, stopped by a signal at the end of a batch (see tests/faults.py)."""
    words = [sys.executable, ROOT / "tests" / "faults.py", *map(str, stop), ROOT / DECAY, *flags]
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.sweep)])
def test_with_every_piece_a_stop_anywhere_resumes_to_the_bit(straight, backend, tmp_path):
    # An epoch has four batches of training, four of validation, and four to validate the averages. Killed inside the
    # warm-up after a checkpoint there; on TensorFlow also stopped before, while the averages are validated.
    words, number = RUN, 15
    if backend == "tensorflow":
        train(tmp_path, backend, *RUN, stop=("SIGTERM", 10), code=143)
        names = {path.name for path in (tmp_path / "output" / "resnet_cifar10").iterdir()}
        assert "epoch_0_batch_4.hdf5" in names
        words, number = ("--resume", "--workers", "1"), 11  # both validations are done again
    train(tmp_path, backend, *words, "--checkpoint_seconds", "0.001", stop=("SIGKILL", number), code=-9)
    # The checkpoint of the second batch was being written.
    newest = list_checkpoints(tmp_path / "output" / "resnet_cifar10")[-1].name
    assert newest in ("epoch_1_batch_1.hdf5", "epoch_1_batch_2.hdf5")
    train(tmp_path, backend, "--resume")
    assert_same_end(straight(backend), tmp_path)


def assert_same_end(expected, folder):
    ours, theirs = folder / "output", expected / "output"
    assert_identical(theirs / "resnet_cifar10.hdf5", ours / "resnet_cifar10.hdf5")
    assert_same_curves(theirs, ours)


@pytest.mark.torture
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
@pytest.mark.parametrize(("kind", "code"), [("SIGKILL", -9), ("SIGTERM", 143)])
def test_with_every_piece_a_run_stopped_at_each_batch_in_turn(straight, tmp_path, backend, kind, code):
    """Stop at each batch of training, validation, and validation of the averages, in all three epochs."""
    for point in range(1, 37):
        found = list_checkpoints(tmp_path / "output" / "resnet_cifar10")
        done = [read_checkpoint(path) for path in found[-1:]]
        passed = sum(12 * checkpoint.epoch + checkpoint.batch for checkpoint in done)
        flags = ("--resume",) if done else RUN
        options = ("--workers", str(1 + point % 2), "--checkpoint_seconds", "0.001")
        train(tmp_path, backend, *flags, *options, stop=(kind, point - passed), code=code)
    train(tmp_path, backend, "--resume")
    assert_same_end(straight(backend), tmp_path)


def test_rank_accuracy_scores_the_averaged_weights_on_held_out_or_test_images(command, straight, tmp_path):
    folder = straight("tensorflow") / "output"
    words = ("rank_accuracy.py", "--model", folder / "resnet_cifar10.hdf5")
    history = json.loads((folder / "resnet_cifar10_decay.json").read_text())
    done = command(*words, "--split", "val")
    assert_names(done.stdout, r"split: val\b", "weights: averaged\n", "images: 128\n")
    assert f"rank-1: {100 * history['ema_val_accuracy'][-1]:.2f}%\n" in done.stdout
    # The limit doesn't apply to the test set.
    assert "images: 360\n" in command(*words, "--json", "rank.json").stdout
    model = keras.models.load_model(folder / "resnet_cifar10.hdf5", compile=False)
    scores = model.predict(
        load_cifar10("digits").test_images - load_cifar10("digits", 128, 128).mean_image(), verbose=0
    )
    accuracy = np.mean(scores.argmax(axis=1) == load_cifar10("digits").test_labels)
    assert json.loads((tmp_path / "rank.json").read_text())["rank-1"] == pytest.approx(accuracy)
    for flags, parts in ((("--tta", "flip"), ["--tta flip"]), (("--submission", "a"), ["--submission", "cifar10"])):
        assert_refused(command(*words, *flags, code=2), *parts)


@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.sweep)])
def test_stock_keras_opens_the_averaged_weights_and_their_accuracy_is_the_one_recorded(straight, backend):
    folder = straight(backend) / "output"
    model = keras.models.load_model(folder / "resnet_cifar10.hdf5", compile=False)
    history = json.loads((folder / "resnet_cifar10_decay.json").read_text())
    data = load_cifar10("digits", limit=128, holdout=128)
    inputs = data.test_images - data.mean_image()
    accuracy = np.mean(model.predict(inputs, verbose=0).argmax(axis=1) == data.test_labels)
    assert accuracy == pytest.approx(history["ema_val_accuracy"][-1], abs=1e-6)
    stored = arrays(folder / "resnet_cifar10.hdf5")
    raw = {name: values for name, values in stored.items() if name.startswith("run/raw/")}
    assert len(raw) == len(model.weights)
    for weight in model.weights:
        np.testing.assert_array_equal(weight, stored[f"model_weights/{weight.path.split('/')[0]}/{weight.path}"])
        assert not np.array_equal(weight, raw[f"run/raw/{weight.path}"])
        weight.assign(raw[f"run/raw/{weight.path}"])
    accuracy = np.mean(model.predict(inputs, verbose=0).argmax(axis=1) == data.test_labels)
    assert accuracy == pytest.approx(history["val_accuracy"][-1], abs=1e-6)
    assert [len(history[curve]) for curve in ("ema_val_loss", "ema_val_accuracy", "loss")] == [3] * 3
    # Two epochs of warm-up, then one of cosine decay.
    np.testing.assert_allclose(history["learning_rate"], [0.05, 0.1, 0.1], rtol=1e-6)
    with h5py.File(folder / "resnet_cifar10.hdf5") as file:
        assert set(file["run"]) == {"state", "normalization", "optimizer", "raw"}
