"""Signals: the state is saved at the end of a batch, and the run resumes exactly."""

import json
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import CHECKPOINTS, ROOT, SMALL
from messages import assert_names, assert_refused
from stopping import BY_HAND, DECAY, RUN, STOPPED, assert_nothing_lost, assert_same_end, launch, start, wait_for_epoch

from pipeline.checkpoints.listing import list_checkpoints


@pytest.mark.parametrize(
    ("kind", "number", "which", "left"),
    [
        ("train", 4, signal.SIGTERM, "epoch_0_batch_4.hdf5"),
        pytest.param("test", 2, signal.SIGINT, "epoch_0_batch_4.hdf5", marks=pytest.mark.sweep),
        pytest.param("train", 7, signal.SIGTERM, "epoch_1_batch_3.hdf5", marks=pytest.mark.sweep),
        pytest.param("train", 3, signal.SIGUSR1, "epoch_0_batch_3.hdf5", marks=pytest.mark.sweep),
    ],
)
def test_a_signal_saves_at_the_end_of_the_batch_and_the_run_goes_on_exactly(
    command, straight, stop_at, monkeypatch, tmp_path, kind, number, which, left
):
    stop_at(kind, number, which)
    done = command(BY_HAND, *RUN, "-c", "c", code=128 + which)
    monkeypatch.undo()
    assert re.fullmatch(r".* \S+ \S*resnet_cifar10\.py --checkpoints c --model latest", done.stdout.splitlines()[-1])
    assert "Traceback" not in done.stderr
    assert list_checkpoints(tmp_path / "c")[-1].name == left
    done = command(BY_HAND, "-c", tmp_path / "c", "-m", "latest", "-o", tmp_path / "output")
    assert "accuracy: " in done.stdout
    assert_same_end(straight(), tmp_path / "c", tmp_path / "output")
    # Removed once a newer one is written.
    assert [path.name for path in list_checkpoints(tmp_path / "c")] == ["epoch_1.hdf5", "epoch_2.hdf5"]


@pytest.mark.parametrize(
    ("kind", "number", "backend"),
    [("save", 11, "tensorflow"), pytest.param("SIGINT", 2, "jax", marks=pytest.mark.sweep)],
)
def test_a_process_stopped_at_a_batch_or_in_a_save_goes_on_exactly(straight, tmp_path, kind, number, backend):
    assert start(tmp_path, kind, number, backend) == STOPPED[kind]
    assert start(tmp_path, backend=backend) == 0
    assert_nothing_lost(straight(backend), tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize("place", ["fsync", pytest.param("savefig", marks=pytest.mark.sweep)])
def test_ten_times_ctrl_c_in_a_save_or_a_plot_stops_at_once_and_harms_nothing(straight, tmp_path, place):
    done = launch(tmp_path, f"storm in {place}", 2)
    assert done.returncode == 130
    asked, ended = filter(None, done.stderr.splitlines())
    assert_names(asked, r"Ctrl\+C")
    assert_names(ended, "checkpoint|lost|saved")
    assert start(tmp_path) == 0
    assert_nothing_lost(straight(), tmp_path)


@pytest.mark.parametrize(
    ("seconds", "number"),
    [
        (0.4, signal.SIGINT),
        pytest.param(0.6, signal.SIGTERM, marks=pytest.mark.sweep),
        (1.0, signal.SIGINT),
        pytest.param(2.0, signal.SIGTERM, marks=pytest.mark.sweep),
        (4.0, signal.SIGHUP),
    ],
)
def test_a_signal_before_training_ends_without_a_traceback(started, seconds, number):
    process = started(BY_HAND, *SMALL, "--epochs", "1000")
    time.sleep(seconds)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors


@pytest.mark.parametrize("streams", [pytest.param(("stdout",), marks=pytest.mark.sweep), ("stdout", "stderr")])
def test_ctrl_c_that_also_ends_the_reader_of_the_output_loses_nothing(started, tmp_path, streams):
    process = started(BY_HAND, *SMALL, "--epochs", "10000")
    wait_for_epoch(process)
    for stream in streams:
        getattr(process, stream).close()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert list_checkpoints(tmp_path / CHECKPOINTS)


@pytest.mark.parametrize("tidy", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_where_python_drops_exceptions_still_counts(tidy, number):
    code = (
        "import gc, os; from pipeline.cli import command\n"
        f"gc.callbacks.append(lambda *_: os.kill(os.getpid(), {int(number)}) or [0 for _ in range(9999)])\n"
        f"command.run(gc.collect, tidy={tidy})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 128 + number


def test_an_import_that_a_signal_breaks_is_no_error():
    code = (
        "import os, signal; from pipeline.cli import command\n"
        "def main():\n"
        "    try: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    except KeyboardInterrupt as error: raise ImportError('a module is broken') from error\n"
        "command.run(main, tidy=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr.strip() == "stopped by SIGTERM"


def test_a_state_inside_an_epoch_is_no_result_of_the_one_before(command, stop_at, monkeypatch, tmp_path):
    stop_at("train", 7)
    command(DECAY, *RUN, "-m", "m.hdf5", code=130)
    monkeypatch.undo()
    done = command(DECAY, "-m", "m.hdf5", "--resume", "--stop_after", "1", code=2)
    assert_refused(done, "epoch_1_batch_3.hdf5", r"epoch 2\b", r"epoch 1\b")
    assert not (tmp_path / "m.hdf5").exists()


def test_a_rate_given_where_only_validation_is_left_is_that_of_the_next_epoch(command, stop_at, monkeypatch, tmp_path):
    stop_at("test", 2)
    command(BY_HAND, *RUN, code=130)
    monkeypatch.undo()
    command(BY_HAND, "-m", "latest", "--lr", "0.02")
    history = json.loads((tmp_path / "output" / "resnet_cifar10.json").read_text())
    assert history["learning_rate"] == [0.1, 0.02]
    assert history["run"]["learning_rate_changes"] == [[1, 0, 0.02]]
