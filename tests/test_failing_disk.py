"""Disks that are full, broken or gone while a run reads, prints or saves."""

import json
import os
import shutil
import subprocess
import sys
from itertools import count

import keras
import numpy as np
import pytest
from conftest import CHECKPOINTS, ROOT, SMALL, arrays, names
from messages import assert_names, assert_refused
from stopping import BY_HAND, RUN, assert_same_end

from pipeline.checkpoints.listing import list_checkpoints
from pipeline.files import atomic
from pipeline.io.batches import Batches


def test_a_folder_removed_under_way_is_reported_and_the_run_goes_on(command, monkeypatch, tmp_path):
    original = keras.callbacks.CallbackList.on_epoch_begin

    def removing(self, epoch, logs=None):
        next(callback.checkpoints for callback in self.callbacks if hasattr(callback, "checkpoints")).finish()
        if epoch == 1:
            shutil.rmtree(tmp_path / "c")
            (tmp_path / "c").write_text("a file in its place")
        if epoch == 2:
            (tmp_path / "c").unlink()
        return original(self, epoch, logs)

    monkeypatch.setattr(keras.callbacks.CallbackList, "on_epoch_begin", removing)
    done = command(BY_HAND, *SMALL, "--epochs", "3", "--every", "1", "-c", tmp_path / "c", code=1)
    assert_names(
        done.stderr, r"epoch_2\.hdf5.*File exists.*\d,\d{3} bytes", rf" {tmp_path}/c[^/]*\n", r"error: .*\b2\b"
    )
    assert "accuracy: " in done.stdout
    assert names(tmp_path / "c") == [".lock", "epoch_3.hdf5"]
    assert len(json.loads((tmp_path / "output" / "resnet_cifar10.json").read_text())["loss"]) == 3


def test_a_log_on_a_full_disk_stops_no_run(tmp_path):
    words = [sys.executable, ROOT / BY_HAND, *RUN]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert_refused(done, f"^{BY_HAND}: error: ", "No space left on device")
    assert list_checkpoints(tmp_path / CHECKPOINTS)[-1].name == "epoch_2.hdf5"


@pytest.mark.sweep
def test_a_run_without_any_stream_runs(tmp_path):
    line = " ".join(map(str, [sys.executable, ROOT / BY_HAND, *RUN]))
    assert subprocess.run(["/bin/sh", "-c", f"{line} <&- >&- 2>&-"], cwd=tmp_path).returncode == 0
    assert list_checkpoints(tmp_path / CHECKPOINTS)[-1].name == "epoch_2.hdf5"


FAILING = """
import sys
sys.path.insert(0, {root!r})
from pipeline.io.batches import Batches

make, reads = Batches._make, []

def fail(self, epoch, batch, rows):
    reads.append(self.training)
    if {condition}:
        raise OSError(5, "Input/output error", "train.hdf5")
    return make(self, epoch, batch, rows)

Batches._make = fail
"""
DISK_ERROR = ("^resnet_cifar10.py: error: ", "Input/output error", "'train.hdf5'")


def test_a_failing_batch_raises_its_own_error_and_the_state_before_is_saved(command, monkeypatch, straight, tmp_path):
    """The third batch of the second epoch fails, as on a disk that is gone."""
    monkeypatch.setattr(Batches, "_make", Batches._make)
    third = "self.training and self.epoch == 1 and rows[0] == self._order[2 * self.batch_size]"
    exec(FAILING.format(root=str(ROOT), condition=third), {})  # noqa: S102
    done = command(BY_HAND, *RUN, "-c", "c", "-o", "o", code=1)
    assert_refused(done, *DISK_ERROR)
    assert list_checkpoints(tmp_path / "c")[-1].name == "epoch_1_batch_2.hdf5"
    assert done.stdout.endswith(f"{BY_HAND} --checkpoints c --model latest\n")
    monkeypatch.undo()
    command(BY_HAND, "-c", tmp_path / "c", "-m", "latest", "-o", tmp_path / "o")
    assert_same_end(straight(), tmp_path / "c", tmp_path / "o")


@pytest.mark.sweep
def test_on_jax_too_and_while_averages_are_validated_the_raw_weights_are_kept(process, tmp_path):
    """The second batch of the second validation in the first epoch fails; each has four batches."""
    script = tmp_path / BY_HAND
    run = f"import runpy\nrunpy.run_path({str(ROOT / BY_HAND)!r}, run_name='__main__')"
    script.write_text(FAILING.format(root=str(ROOT), condition="reads.count(False) >= 6") + run)
    done = process(script, *RUN, "--ema", "0.9", "--workers", "1", "-c", "c", backend="jax", code=1)
    assert_names(done.stderr.splitlines()[-1], *DISK_ERROR)
    assert "Traceback" not in done.stderr
    assert list_checkpoints(tmp_path / "c")[-1].name == "epoch_0_batch_4.hdf5"
    saved = arrays(tmp_path / "c" / "epoch_0_batch_4.hdf5")
    assert not np.array_equal(saved["run/raw/conv1/kernel"], saved["model_weights/conv1/conv1/kernel"])


@pytest.fixture
def failing_save(monkeypatch):
    """Make the first save of a checkpoint fail."""
    original, saves = atomic.flush, count()

    def flush(path):
        if path.name == CHECKPOINTS.name and next(saves) == 0:
            raise OSError(28, "No space left on device")
        original(path)

    monkeypatch.setattr(atomic, "flush", flush)


def test_a_stop_that_can_not_be_saved_asks_again_on_a_terminal(command, stop_at, typed, failing_save, tmp_path):
    stop_at("train", 2)
    typed("stop", "stop")
    done = command(BY_HAND, *RUN, code=130)
    assert_names(done.stderr, "epoch_0_batch_2.hdf5", "No space left on device", "not saved|unsaved")
    assert_names(done.stdout, rf" {CHECKPOINTS}/epoch_0_batch_2\.hdf5\n")


def test_a_stop_that_can_not_be_saved_without_a_terminal_fails(command, stop_at, monkeypatch):
    stop_at("train", 2)
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    done = command(BY_HAND, *RUN, code=1)
    assert_names(done.stderr, "epoch_0_batch_2.hdf5", "No space left on device", "not saved|unsaved")
    # The command that resumes is printed only at the start.
    assert done.stdout.count("--model latest") == 1
