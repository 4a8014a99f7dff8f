"""Trying a run, which leaves nothing."""

import os
import re

import pytest
from conftest import CHECKPOINTS, SMALL, names
from messages import assert_names, assert_refused
from stopping import BY_HAND, DECAY, RUN

from pipeline.callbacks import EpochCheckpoint, TrainingMonitor
from pipeline.training import dryrun


def contents(folder):
    """Return every path below a folder, with its size and times."""
    paths = [folder, *sorted(folder.rglob("*"))]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino) for path in paths}


def test_a_dry_run_tells_what_a_run_takes_and_leaves_nothing(command, tmp_path):
    before = contents(tmp_path)
    logs = ("--csv", "logs/log.csv", "--tensorboard", "board", "--ema", "0.9")
    done = command(DECAY, *SMALL, "--epochs", "10", "--every", "3", "--dry_run", *logs)
    assert contents(tmp_path) == before
    assert_names(
        done.stdout,
        r"\b366 parameters",
        "128 images of 32 x 32 x 3, 4 steps of 32",
        "128 images, 4 batches per epoch, and again with the averaged weights",
        r"with compiling: \d",
        r"training step: \d.* images/s",
        r"memory: \d.* GB",
        r"checkpoints: 5 of \d+ KB",  # after 3, 6, 9 and 10 epochs, and the trained model
        r"until epoch 10\b",
    )
    assert done.stderr == ""
    assert "resume with" not in done.stdout


def test_a_dry_run_of_a_resume_leaves_the_run_as_it_was(command, tmp_path):
    command(BY_HAND, *RUN, "--stop_after", "1")
    before = contents(tmp_path)
    done = command(BY_HAND, "-m", "latest", "--dry_run", "--lr", "0.01", "--epochs", "9", "--output", "elsewhere")
    assert contents(tmp_path) == before
    assert_names(done.stdout, "epoch_1.hdf5", "until epoch 9")
    assert names(tmp_path) == ["output"]
    command(BY_HAND, "-m", "latest")
    assert (tmp_path / CHECKPOINTS / "epoch_2.hdf5").exists()


def test_a_dry_run_refuses_what_a_run_refuses(command, tmp_path):
    assert_refused(command(BY_HAND, "--data", "nowhere", "--dry_run", code=2), "--data nowhere")
    (tmp_path / "file").touch()
    assert_refused(command(BY_HAND, *RUN, "--dry_run", "--output", "file/x", code=2), "file")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("computing", "reading", "threads", "cores", "is_accelerated", "seconds"),
    [
        (1.0, 0.2, 2, 2, False, 1.1),  # the cores share the work
        (0.01, 1.0, 1, 16, False, 1.0),  # one thread can't keep up
        (0.1, 0.2, 4, 8, True, 0.1),
        (0.1, 0.8, 4, 8, True, 0.2),
        (0.1, 0.8, 4, 2, True, 0.4),
    ],
)
def test_the_slower_of_reading_and_computing_counts(
    monkeypatch, computing, reading, threads, cores, is_accelerated, seconds
):
    monkeypatch.setattr(dryrun, "cores", lambda: cores)
    monkeypatch.setattr(dryrun, "is_accelerated", lambda: is_accelerated)
    assert dryrun.combined(computing, reading, threads) == pytest.approx(seconds)


def test_the_size_of_a_checkpoint_is_that_of_the_file(command, tmp_path):
    done = command(BY_HAND, *RUN, "--dry_run")
    command(BY_HAND, *RUN, "--stop_after", "1")
    size = (tmp_path / CHECKPOINTS / "epoch_1.hdf5").stat().st_size
    told = float(re.search(r"checkpoints: 2 of (\d+) KB", done.stdout)[1])
    assert told * 1000 == pytest.approx(size, rel=0.05)


@pytest.mark.parametrize("create", [lambda path: TrainingMonitor(path / "a.png"), EpochCheckpoint])
def test_a_callback_creates_its_folder_only_when_it_writes(tmp_path, create):
    create(tmp_path / "folder")
    assert names(tmp_path) == []


@pytest.mark.sweep
def test_on_jax_a_dry_run_leaves_nothing_either(process, tmp_path):
    cache = os.environ["JAX_COMPILATION_CACHE_DIR"]
    done = process(BY_HAND, *RUN, "--dry_run", backend="jax", JAX_COMPILATION_CACHE_DIR=cache)
    assert re.search(r"jax on ", done.stdout)
    assert names(tmp_path) == []
