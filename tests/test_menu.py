"""The menu after Ctrl+C on a terminal."""

import io
import json
import signal
import subprocess
import sys

import pexpect
import pytest
from conftest import CHECKPOINTS, ROOT, SMALL
from messages import TO, assert_names, assert_refused
from stopping import BY_HAND, DECAY, RUN

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.folder import CheckpointFolder
from pipeline.checkpoints.listing import list_checkpoints


@pytest.fixture
def terminal(tmp_path):
    """Start a run on a pseudo-terminal; `logfile_read` holds its output."""
    words = [str(ROOT / BY_HAND), *SMALL, "--epochs", "5000", "--every", "5000"]
    child = pexpect.spawn(sys.executable, words, cwd=tmp_path, encoding="utf-8", timeout=120)
    child.logfile_read = io.StringIO()
    child.expect(r"Epoch 2/")
    yield child
    child.close(force=True)


def ends_with(terminal, code):
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert "Traceback" not in terminal.logfile_read.getvalue()
    assert terminal.exitstatus == code


def test_the_menu_goes_on_changes_the_rate_and_stops(terminal, tmp_path):
    terminal.sendintr()
    terminal.expect_exact("> ")
    terminal.sendline("nonsense")
    terminal.expect_exact("'nonsense'")
    terminal.expect_exact("> ")
    terminal.sendline("c")
    terminal.expect(r"Epoch \d+/")
    terminal.sendintr()
    terminal.expect(r"learning rate 0\.1\b")
    terminal.expect_exact("> ")
    terminal.sendline("0.01")
    terminal.expect(rf"\b0\.1 {TO} 0\.01\b")
    terminal.expect(r"Epoch \d+/")
    terminal.sendintr()
    terminal.expect(r"learning rate 0\.01\b")
    terminal.expect_exact("> ")
    terminal.sendline("s")
    terminal.expect(r"\S+ \S+resnet_cifar10\.py --checkpoints \S+ --model latest")
    ends_with(terminal, 130)
    (left,) = list_checkpoints(tmp_path / CHECKPOINTS)
    run = read_checkpoint(left).history["run"]
    ((epoch, batch, rate),) = run["learning_rate_changes"]
    assert rate == run["arguments"]["lr"] == 0.01
    assert 0 <= batch <= 4
    assert epoch >= 0


@pytest.mark.parametrize(
    ("end", "code"),
    [
        pytest.param("end of file", 130, marks=pytest.mark.sweep),
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.sweep),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.sweep),
    ],
)
def test_a_menu_that_nobody_answers_any_more_stops(terminal, tmp_path, end, code):
    terminal.sendintr()
    terminal.expect_exact("> ")
    if end == "end of file":
        terminal.sendeof()
    else:
        terminal.kill(end)
    ends_with(terminal, code)
    assert len(list_checkpoints(tmp_path / CHECKPOINTS)) == 1


@pytest.mark.sweep
def test_a_message_begins_on_a_line_of_its_own(terminal, tmp_path):
    words = [sys.executable, "-m", "pipeline.steer", tmp_path / "output"]
    with subprocess.Popen([*words, "--lr", "0.05"], cwd=ROOT, stdout=subprocess.DEVNULL):
        terminal.expect(rf"(.)learning rate 0\.1 {TO} 0\.05")
    assert terminal.match[1] == "\n"
    with subprocess.Popen([*words, "--stop"], cwd=ROOT, stdout=subprocess.DEVNULL):
        ends_with(terminal, 143)


def test_a_terminal_that_closes_loses_nothing(terminal, tmp_path):
    terminal.ptyproc.fileobj.close()
    terminal.wait()
    assert terminal.exitstatus == 129
    assert list_checkpoints(tmp_path / CHECKPOINTS)


def test_a_chosen_rate_is_safe_at_once(command, stop_at, typed, tmp_path, monkeypatch):
    stop_at("train", 2)
    typed(0.02)
    kept = []
    monkeypatch.setattr(CheckpointFolder, "_remove_superfluous", lambda self, newest, score: kept.append(newest))
    command(BY_HAND, *RUN)
    assert (0, 2) in kept
    run = read_checkpoint(tmp_path / CHECKPOINTS / "epoch_0_batch_2.hdf5").history["run"]
    assert run["learning_rate_changes"] == [[0, 2, 0.02]]
    assert run["arguments"]["lr"] == 0.02


def test_within_a_warm_up_the_menu_tells_both_rates_and_takes_the_one_to_rise_to(command, stop_at, typed, tmp_path):
    stop_at("train", 2)
    asked = typed(0.04)
    command(BY_HAND, *RUN, "--warmup_epochs", "1")
    (message,) = asked
    assert_names(message, r"epoch 1\b", r"batch 2\b", r"\b0\.05\b.*\b0\.1\b")
    history = json.loads((tmp_path / "output" / "resnet_cifar10.json").read_text())
    assert history["learning_rate"] == [0.04, 0.04]
    assert history["run"]["learning_rate_changes"] == [[0, 2, 0.04]]


@pytest.mark.parametrize(("script", "rates"), [(BY_HAND, [0.1, 0.02]), (DECAY, [0.1, 0.02])])
def test_a_rate_chosen_in_validation_is_that_of_the_next_epoch(command, stop_at, typed, tmp_path, script, rates):
    stop_at("test", 2)
    typed(0.02)
    command(script, *RUN, *(("-m", "m.hdf5") if script == DECAY else ()))
    history = json.loads((tmp_path / "output" / f"{script[:-3]}.json").read_text())
    assert history["learning_rate"] == rates
    assert history["run"]["learning_rate_changes"] == [[1, 0, pytest.approx(0.02)]]


def test_a_rate_chosen_in_validation_outlives_a_stop_there(command, stop_at, typed, tmp_path, monkeypatch):
    stop_at("test", 2)
    stop_at("test", 3)
    typed(0.02, "stop")
    done = command(BY_HAND, *RUN, code=130)
    assert_names(done.stdout, rf"\b0\.1 {TO} 0\.02\b.*epoch 2\b")
    monkeypatch.undo()
    command(BY_HAND, "-m", "latest")
    history = json.loads((tmp_path / "output" / "resnet_cifar10.json").read_text())
    assert history["learning_rate"] == [0.1, 0.02]
    assert history["run"]["learning_rate_changes"] == [[1, 0, 0.02]]


def test_in_the_last_validation_no_rate_is_asked_for(command, stop_at, typed, tmp_path):
    stop_at("test", 7)
    asked = typed()
    command(DECAY, *RUN, code=130)
    assert not asked
    done = command(DECAY, "--resume", "--lr", "0.2", code=2)
    assert_refused(done, "--lr 0.2", r"\b0\b", r"epoch 2\b")
    command(DECAY, "--resume")
