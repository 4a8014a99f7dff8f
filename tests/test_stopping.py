"""Stopping anywhere and going on: signals, the menu, disks that fail, folders that are in use."""

import os
import signal
import subprocess
import sys
from itertools import count

import keras
import pytest
from conftest import ROOT, SMALL, assert_identical

from pipeline.io.checkpointfolder import list_checkpoints

BY_HAND, DECAY = "resnet_cifar10.py", "resnet_cifar10_decay.py"
# Four steps of training an epoch and four of validation.
RUN = (*SMALL, "--epochs", "2", "--every", "1")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The run that never stopped."""
    folder = tmp_path_factory.mktemp("straight")
    subprocess.run([sys.executable, ROOT / BY_HAND, *RUN, "-c", folder, "-o", folder], check=True, capture_output=True)
    return folder


def assert_same_end(straight, folder, output):
    assert_identical(straight / "epoch_2.hdf5", folder / "epoch_2.hdf5")
    for name in ("resnet_cifar10.json", "resnet_cifar10.png"):
        assert (straight / name).read_bytes() == (output / name).read_bytes()


@pytest.fixture
def stop_at(monkeypatch):
    """Sends this process a signal at the end of the N-th batch, of training or validation, counted from 1."""

    def plan(kind, number, which=signal.SIGINT):
        batches = count(1)
        original = getattr(keras.callbacks.CallbackList, f"on_{kind}_batch_end")

        def with_signal(self, *arguments, **options):
            if next(batches) == number:
                os.kill(os.getpid(), which)
            return original(self, *arguments, **options)

        monkeypatch.setattr(keras.callbacks.CallbackList, f"on_{kind}_batch_end", with_signal)

    return plan


@pytest.mark.parametrize(
    ("kind", "number", "which", "left"),
    [
        ("train", 1, signal.SIGINT, "epoch_0_batch_1.hdf5"),
        ("train", 4, signal.SIGTERM, "epoch_0_batch_4.hdf5"),
        ("test", 2, signal.SIGINT, "epoch_0_batch_4.hdf5"),
        ("train", 7, signal.SIGTERM, "epoch_1_batch_3.hdf5"),
        ("test", 8, signal.SIGINT, "epoch_1_batch_4.hdf5"),
    ],
)
def test_a_signal_saves_at_the_end_of_the_batch_and_the_run_goes_on_exactly(
    command, straight, stop_at, monkeypatch, tmp_path, kind, number, which, left
):
    with monkeypatch.context() as context:
        stop_at(kind, number, which)
        done = command(BY_HAND, *RUN, "-c", "c", code=128 + which)
        context.undo()
    monkeypatch.undo()
    assert "go on with: python resnet_cifar10.py --checkpoints c --model latest" in done.stdout
    assert "Traceback" not in done.stderr
    assert list_checkpoints(tmp_path / "c")[-1].name == left
    done = command(BY_HAND, "-c", tmp_path / "c", "-m", "latest", "-o", tmp_path / "output")
    assert "accuracy: " in done.stdout
    assert_same_end(straight, tmp_path / "c", tmp_path / "output")
    # Superfluous once a newer one is safe.
    assert [path.name for path in list_checkpoints(tmp_path / "c")] == ["epoch_1.hdf5", "epoch_2.hdf5"]
