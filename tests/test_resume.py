"""Resuming a run: exactly, with another learning rate, in other places and on other backends."""

import json
import re
import shutil
import signal
import time

import cv2
import numpy as np
import pytest
from conftest import SMALL, assert_identical, assert_same_curves, timeless
from messages import MISSING, TO, assert_names, assert_refused

BY_HAND, DECAY = "resnet_cifar10.py", "resnet_cifar10_decay.py"


def check_resume(run, folder, stops, **options):
    """Compare a run of four epochs with one resumed after each of `stops`, (epoch, workers)."""
    run(
        BY_HAND,
        *SMALL,
        "--epochs",
        "4",
        "--every",
        "1",
        "-c",
        "straight",
        "-o",
        "straight",
        "--workers",
        "1",
        **options,
    )
    for epoch, workers in stops:
        resumed = folder / f"from_{epoch}_with_{workers}"
        resumed.mkdir()
        shutil.copy(folder / "straight" / f"epoch_{epoch}.hdf5", resumed)
        flags = ("--model", "latest", "--start_epoch", str(epoch), "--workers", workers)
        run(BY_HAND, "-c", resumed, "-o", resumed, *flags, **options)
        assert_identical(folder / "straight" / "epoch_4.hdf5", resumed / "epoch_4.hdf5")
        assert_same_curves(folder / "straight", resumed)


def test_resuming_after_any_epoch_equals_the_run_that_never_stopped(command, tmp_path):
    check_resume(command, tmp_path, [(1, "2"), (3, "1")])


@pytest.mark.sweep
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_resuming_in_new_processes_after_each_epoch_with_1_and_2_workers(process, tmp_path, backend):
    check_resume(process, tmp_path, [(epoch, workers) for epoch in (1, 2, 3) for workers in "12"], backend=backend)


@pytest.mark.sweep
def test_a_run_killed_between_epochs_resumes_exactly(command, process, started, tmp_path):
    options = (*SMALL, "--epochs", "4", "--every", "1")
    command(DECAY, *options, "-m", "straight.hdf5", "-o", "straight_output")
    killed = started(DECAY, *options, "-m", "killed.hdf5")
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "epoch_2.hdf5").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed.hdf5").exists()
    process(DECAY, "-m", "killed.hdf5", "--resume")
    assert_identical(tmp_path / "straight.hdf5", tmp_path / "killed.hdf5")
    # As if killed between the last checkpoint and the trained model.
    (tmp_path / "killed.hdf5").unlink()
    command(DECAY, "-m", "killed.hdf5", "--resume")
    assert_identical(tmp_path / "straight.hdf5", tmp_path / "killed.hdf5")
    ours, theirs = (
        json.loads((tmp_path / folder / "resnet_cifar10_decay.json").read_text())
        for folder in ("output", "straight_output")
    )
    assert timeless(ours) == timeless(theirs)
    np.testing.assert_allclose(ours["learning_rate"], [0.1, 0.075, 0.05, 0.025])


def test_learning_rate_changes_by_hand(command, tmp_path):
    command(BY_HAND, *SMALL, "--epochs", "6", "--stop_after", "2", "--every", "1", "-c", "checkpoints")
    options = ("-c", "checkpoints", "--model", "checkpoints/epoch_1.hdf", "--stop-after", "3", "--lr", "0.01")
    done = command(BY_HAND, *options)
    assert_names(done.stdout, rf"\b0\.1 {TO} 0\.01\b", "accuracy: ", "precision +recall")
    history = json.loads((tmp_path / "output" / "resnet_cifar10.json").read_text())
    assert history["learning_rate"] == [0.1, 0.01, 0.01]
    assert history["run"]["learning_rate_changes"] == [[1, 0, 0.01]]
    # The earlier run's second epoch and history are kept, not overwritten.
    earlier = tmp_path / "output" / "earlier-1"
    assert len(json.loads((earlier / "resnet_cifar10.json").read_text())["loss"]) == 2
    assert [path.name for path in (tmp_path / "checkpoints" / "earlier-1").iterdir()] == ["epoch_2.hdf5"]
    # Another resume keeps the rate; after the last epoch, the run only reports.
    done = command(BY_HAND, "-c", "checkpoints", "--model", "latest", "--epochs", "3")
    assert not re.search(rf"\d {TO} \d", done.stdout)
    assert_names(done.stdout, r"epoch 3\b.*(reached|already|done|complete)", "accuracy: ")


def test_a_decay_goes_on_from_another_rate(command, tmp_path):
    command(DECAY, *SMALL, "--epochs", "4", "--stop_after", "2", "--every", "1")
    done = command(DECAY, "--resume", "--lr", "0.04")
    assert_names(done.stdout, rf"\b0\.05 {TO} 0\.02\b")
    history = json.loads((tmp_path / "output" / "resnet_cifar10_decay.json").read_text())
    np.testing.assert_allclose(history["learning_rate"], [0.1, 0.075, 0.02, 0.01])
    (change,) = history["run"]["learning_rate_changes"]
    np.testing.assert_allclose(change, [2, 0, 0.02])
    # The new initial rate of the decay holds from here on.
    assert not re.search(rf"\d {TO} \d", command(DECAY, "--resume").stdout)
    done = command(DECAY, "--resume", "--lr", "0.01", code=2)
    assert_refused(done, "--lr 0.01", r"\b0\b", r"epoch 4\b")


def test_jax_trains_and_resumes_where_tensorflow_is_missing(process, tmp_path):
    (tmp_path / "absent" / "tensorflow").mkdir(parents=True)
    (tmp_path / "absent" / "tensorflow" / "__init__.py").write_text("raise ModuleNotFoundError('tensorflow')")
    path = str(tmp_path / "absent")
    options = (*SMALL, "--epochs", "2", "--every", "1")
    process(DECAY, *options, "--stop_after", "1", backend="jax", PYTHONPATH=path)
    process(DECAY, "--resume", backend="jax", PYTHONPATH=path)
    history = json.loads((tmp_path / "output" / "resnet_cifar10_decay.json").read_text())
    assert len(history["loss"]) == 2
    assert [sitting["backend"] for sitting in history["run"]["sittings"]] == ["jax", "jax"]
    assert all("jax" in sitting["versions"] for sitting in history["run"]["sittings"])
    done = process(DECAY, *options, code=2, PYTHONPATH=path)
    assert_refused(done, "tensorflow", "KERAS_BACKEND=jax")


def write_image_folder(folder):
    for place in ("train/ant", "train/bee", "test/ant", "test/bee"):
        (folder / place).mkdir(parents=True)
        for number in range(2):
            cv2.imwrite(str(folder / place / f"{number}.png"), np.full((32, 32, 3), 50 * number, np.uint8))
    return folder


def test_a_resume_from_elsewhere_says_where_files_go_and_whose_value_is_missing(command, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    folder = write_image_folder(tmp_path / "data")
    flags = ("--stages", "1", "--filters", "4,8", "--batch_size", "2", "--epochs", "2", "--stop_after", "1")
    command(BY_HAND, "--data", folder.name, *flags, "-c", here)
    shutil.move(folder, tmp_path / "moved")
    done = command(BY_HAND, "-m", here / "epoch_1.hdf5", code=2)
    assert_refused(done, "--data data", MISSING, str(tmp_path))
    done = command(BY_HAND, "-m", here / "epoch_1.hdf5", "--data", "moved")
    assert_names(done.stdout, rf" {tmp_path}/output\b.*--output output\b", f" {here}\n")
