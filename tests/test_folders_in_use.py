"""Folders that hold files of other runs, or that another process uses."""

import os
import shutil

import numpy as np
import pytest
from conftest import CHECKPOINTS, SMALL, assert_same_curves, names
from messages import assert_names, assert_refused, naming
from stopping import BY_HAND, RUN, wait_for_epoch

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.listing import list_checkpoints
from pipeline.files import lock


def test_two_runs_in_one_folder(process, started, tmp_path):
    first = started(BY_HAND, *SMALL, "--epochs", "10000")
    wait_for_epoch(first)
    second = process(BY_HAND, *SMALL, code=2)
    first.kill()
    first.wait()
    assert_refused(second, str(CHECKPOINTS), rf"\b{first.pid}\b", r"\b\d{4}-\d\d-\d\d\b")
    # The system has released the dead run's lock.
    with lock.Lock(tmp_path / CHECKPOINTS):
        pass


def test_unfinished_files_of_dead_runs_are_swept_and_nothing_else(command, tmp_path):
    (tmp_path / CHECKPOINTS / "mine.tmp").mkdir(parents=True)
    checkpoints = "resnet_cifar10/checkpoints"
    for place in (f"{checkpoints}/epoch_5.hdf5.77.tmp", "resnet_cifar10.json.77.tmp"):
        (tmp_path / "output" / place).write_text("half")
    for place in (f"{checkpoints}/mine.77.tmp", f"{checkpoints}/epoch_5.tmp", "train.json.77.tmp"):
        (tmp_path / "output" / place).write_text("of someone else")
    command(BY_HAND, *SMALL, "--epochs", "1")
    assert sorted(path.name for path in (tmp_path / "output").rglob("*.tmp")) == [
        "epoch_5.tmp", "mine.77.tmp", "mine.tmp", "train.json.77.tmp",
    ]  # fmt: skip


def test_another_run_s_state_inside_its_first_epoch_is_kept(command, stop_at, monkeypatch, tmp_path, straight):
    stop_at("train", 2)
    command(BY_HAND, *RUN, "--seed", "2", "-c", "c", code=130)
    monkeypatch.undo()
    left = tmp_path / "c" / "epoch_0_batch_2.hdf5"
    content = left.read_bytes()
    done = command(BY_HAND, "-c", "c", "-m", straight() / "epoch_1.hdf5", "-o", "o")
    assert (tmp_path / "c" / "earlier-1" / left.name).read_bytes() == content
    assert_names(done.stdout, r"c/earlier-1.*: epoch_0_batch_2\.hdf5\n")


def test_a_run_s_own_state_inside_its_first_epoch_goes_with_another_rate_too(command, stop_at, monkeypatch, tmp_path):
    stop_at("train", 2)
    command(BY_HAND, *RUN, code=130)
    monkeypatch.undo()
    command(BY_HAND, "-m", "latest", "--lr", "0.05")
    assert [path.name for path in list_checkpoints(tmp_path / CHECKPOINTS)] == ["epoch_1.hdf5", "epoch_2.hdf5"]
    assert not (tmp_path / CHECKPOINTS / "earlier-1").exists()


def test_a_lock_is_taken_again_where_the_folder_was_removed(tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()
    with lock.Lock(folder) as first:
        shutil.rmtree(folder)
        folder.mkdir()
        held = naming(str(folder), rf"\b{os.getpid()}\b")
        with lock.Lock(folder), pytest.raises(ValueError, match=held):
            first.acquire()
        first.acquire()
        with pytest.raises(ValueError, match=held):
            lock.Lock(folder).acquire()


def test_a_run_that_another_process_went_on_with_meanwhile_is_not_gone_on_with(command, monkeypatch, tmp_path):
    command(BY_HAND, *RUN, "--stop_after", "1")
    folder = tmp_path / CHECKPOINTS
    original = lock.Lock.acquire

    def acquire(self):
        shutil.copy(folder / "epoch_1.hdf5", folder / "epoch_2.hdf5")
        original(self)

    monkeypatch.setattr(lock.Lock, "acquire", acquire)
    done = command(BY_HAND, "-m", "latest", code=2)
    assert_refused(done, str(CHECKPOINTS), r"\bprocess\b")
    assert names(folder) == [".lock", "epoch_1.hdf5", "epoch_2.hdf5"]


def test_a_run_that_diverges_inside_an_epoch_leaves_no_checkpoint_of_it(command, tmp_path):
    done = command(BY_HAND, *RUN, "--lr", "1e30", "--checkpoint_seconds", "0.001", code=2)
    assert_names(done.stderr, r"\bloss\b", r"epoch 1\b", r"batch \d", "--lr")
    for path in list_checkpoints(tmp_path / CHECKPOINTS):
        assert all(np.isfinite(values).all() for values in read_checkpoint(path).metric_state)


def test_curves_that_are_missing_are_written_by_a_run_that_is_done(command, straight, tmp_path):
    command(BY_HAND, *RUN)
    command(BY_HAND, "-m", "latest", "-o", tmp_path / "new")
    assert_same_curves(straight(), tmp_path / "new")
