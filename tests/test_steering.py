"""Requests that a run carries out: the rate, a checkpoint, a stop, its progress."""

import json
import os
import re
import signal

import pytest
from conftest import CHECKPOINTS, assert_identical, assert_same_curves, names
from messages import TO, assert_names, assert_refused
from steering import changes
from stopping import BY_HAND, DECAY, RUN, assert_same_end

from pipeline.callbacks import LearningRate
from pipeline.callbacks import steering as carrying_out
from pipeline.checkpoints.listing import list_checkpoints
from pipeline.files.requests import Inbox
from pipeline.utils.identity import new_identity


@pytest.fixture
def killed(monkeypatch):
    """End the run in this process just before its first answer."""

    def kill(self, request, answer):
        raise SystemExit(9)

    monkeypatch.setattr(Inbox, "answer", kill)


@pytest.mark.parametrize(("kind", "number", "change"), [("train", 2, [0, 2, 0.02]), ("test", 2, [1, 0, 0.02])])
def test_a_requested_rate_is_that_of_the_menu(
    command, ask_at, stop_at, typed, monkeypatch, tmp_path, kind, number, change
):
    stop_at(kind, number)
    typed(0.02)
    command(BY_HAND, *RUN, "-o", "menu", "-c", "menu")
    monkeypatch.undo()
    asked = ask_at(kind, number, "lr", 0.02)
    done = command(BY_HAND, *RUN)
    answer = asked[0].take_answer()
    point = "after epoch 0, batch 2" if kind == "train" else "from epoch 2 on"
    assert_names(answer.text, rf"learning rate 0\.1 {TO} 0\.02 {point}$")
    assert answer.code == 0
    assert_names(done.stdout, rf"learning rate 0\.1 {TO} 0\.02")
    assert changes(tmp_path / CHECKPOINTS / "epoch_2.hdf5") == [change]
    assert_identical(tmp_path / "menu" / "epoch_2.hdf5", tmp_path / CHECKPOINTS / "epoch_2.hdf5")
    assert_same_curves(tmp_path / "menu", tmp_path / "output")
    left = [
        ".resnet_cifar10.lock",
        "resnet_cifar10",
        "resnet_cifar10.json",
        "resnet_cifar10.png",
    ]
    assert names(tmp_path / "output") == left


def test_a_run_killed_after_the_save_and_before_the_answer_answers_when_it_is_resumed(
    command, ask_at, killed, monkeypatch, tmp_path
):
    asked = ask_at("train", 2, "lr", 0.02)
    command(BY_HAND, *RUN, code=9)
    monkeypatch.undo()
    assert asked[0].take_answer() is None
    assert changes(*list_checkpoints(tmp_path / CHECKPOINTS)) == [[0, 2, 0.02]]
    command(BY_HAND, "-m", "latest")
    assert_names(asked[0].take_answer().text, rf"0\.1 {TO} 0\.02 after epoch 0, batch 2")
    assert changes(tmp_path / CHECKPOINTS / "epoch_2.hdf5") == [[0, 2, 0.02]]


@pytest.mark.parametrize(
    "resume",
    [
        pytest.param("latest", marks=pytest.mark.sweep),
        "latest, stopped at once",
        pytest.param("with another rate", marks=pytest.mark.sweep),
        "from an earlier checkpoint",
    ],
)
def test_what_a_killed_run_has_not_seen_waits_for_its_resume(
    command, ask_at, killed, stop_at, monkeypatch, tmp_path, resume
):
    monkeypatch.setattr(carrying_out.Steering, "is_asked", lambda self: False)
    asked = [ask_at("train", 6, action, lr) for action, lr in (("status", None), ("lr", 0.02), ("stop", None))]
    command(BY_HAND, *RUN, "--epochs", "3", "--stop_after", "2")
    monkeypatch.undo()
    words = ("-m", tmp_path / CHECKPOINTS / "epoch_1.hdf5") if "earlier" in resume else ("-m", "latest")
    if "stopped" in resume:
        stop_at("train", 1, signal.SIGTERM)
        command(BY_HAND, *words, code=143)
        monkeypatch.undo()
    done = command(BY_HAND, *words, *(("--lr", "0.05") if "another" in resume else ()))
    status, lr, stop = (question.take_answer() for (question,) in asked)
    assert status.code == stop.code == 2  # they were for the process that has ended
    made = changes(tmp_path / CHECKPOINTS / "epoch_3.hdf5")
    if "latest" in resume:
        assert_names(lr.text, rf"0\.1 {TO} 0\.02 after epoch 2, batch 1")
        assert made == [[2, 1, 0.02]]
    else:
        assert lr.code == 2
        assert asked[1][0].request.id in done.stderr
        assert made == ([[2, 0, 0.05]] if "another" in resume else [])


def test_two_rates_at_one_batch_are_two_changes(command, ask_at, tmp_path):
    asked = ask_at("train", 3, "lr", 0.02, times=2)
    command(BY_HAND, *RUN)
    assert changes(tmp_path / CHECKPOINTS / "epoch_2.hdf5") == [[0, 3, 0.02]] * 2
    assert [question.take_answer().code for question in asked] == [0, 0]


def test_with_a_decay_the_requested_rate_is_the_current_one_and_the_last_epoch_takes_none(command, ask_at, tmp_path):
    early = ask_at("train", 6, "lr", 0.01, "resnet_cifar10_decay")
    late = ask_at("test", 7, "lr", 0.01, "resnet_cifar10_decay")
    command(DECAY, *RUN, "-m", "m.hdf5")
    assert early[0].take_answer().code == 0
    assert_names(late[0].take_answer().text, "epoch 2, the last")
    history = json.loads((tmp_path / "output" / "resnet_cifar10_decay.json").read_text())
    assert history["learning_rate"] == [pytest.approx(0.1), pytest.approx(0.01)]
    assert history["run"]["arguments"]["lr"] == pytest.approx(0.02)


def test_a_request_to_save_and_one_for_the_status_change_nothing(command, ask_at, straight, tmp_path):
    (tmp_path / "output").mkdir()
    save, status = ask_at("train", 6, "save"), ask_at("train", 7, "status")
    command(BY_HAND, *RUN, "-c", "c")
    answer = save[0].take_answer()
    assert_names(answer.text, f"saved {tmp_path}/c/epoch_1_batch_2.hdf5")
    assert answer.code == 0
    answer = status[0].take_answer()
    assert_names(
        answer.text, "epoch 2\\b", "batch 3 of 4", r"learning rate 0\.1\b", "epoch 1: loss", "epoch_1_batch_2.hdf5"
    )
    assert_same_end(straight(), tmp_path / "c", tmp_path / "output")


def failing_save(path, content):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("kind", "left"),
    [pytest.param("train", "epoch_0_batch_3.hdf5", marks=pytest.mark.sweep), ("test", "epoch_0_batch_4.hdf5")],
)
def test_a_request_to_stop_is_a_sigterm(command, ask_at, straight, monkeypatch, tmp_path, kind, left):
    asked = ask_at(kind, 3, "stop")
    command(BY_HAND, *RUN, "-c", "c", code=143)
    monkeypatch.undo()
    answer = asked[0].take_answer()
    assert_names(answer.text, "stopped", str(tmp_path / "c" / left))
    assert answer.code == 0
    command(BY_HAND, "-c", "c", "-m", "latest")
    assert_same_end(straight(), tmp_path / "c", tmp_path / "output")


@pytest.mark.parametrize(
    ("action", "part"),
    [("lr", "not saved"), pytest.param("save", "not saved", marks=pytest.mark.sweep), ("stop", "not be saved")],
)
def test_what_can_not_be_saved_is_said_to_be_so(command, ask_at, monkeypatch, action, part):
    monkeypatch.setattr("pipeline.checkpoints.folder.save_checkpoint", failing_save)
    asked = ask_at("train", 2, action, 0.02 if action == "lr" else None)
    command(BY_HAND, *RUN, code=1)
    answer = asked[0].take_answer()
    assert_names(answer.text, part)
    assert answer.code == 1


def test_an_answer_that_can_not_be_written_is_written_later(command, ask_at, monkeypatch, tmp_path):
    original, failed = Inbox.answer, []

    def failing_once(self, request, answer):
        if not failed:
            failed.append(request)
            raise OSError(28, "No space left on device")
        original(self, request, answer)

    monkeypatch.setattr(Inbox, "answer", failing_once)
    asked = ask_at("train", 2, "lr", 0.02)
    done = command(BY_HAND, *RUN)
    assert_refused(done, asked[0].request.id, "No space")
    assert asked[0].take_answer().code == 0
    assert changes(tmp_path / CHECKPOINTS / "epoch_2.hdf5") == [[0, 2, 0.02]]


def test_a_second_rate_in_a_validation_replaces_the_first(command, ask_at, tmp_path):
    first, second = ask_at("test", 1, "lr", 0.02), ask_at("test", 2, "lr", 0.03)
    status = ask_at("test", 3, "status")
    command(BY_HAND, *RUN)
    assert_names(first[0].take_answer().text, rf"0\.1 {TO} 0\.02 from epoch 2 on")
    assert_names(second[0].take_answer().text, rf"0\.02 {TO} 0\.03 from epoch 2 on")
    assert_names(status[0].take_answer().text, r"learning rate 0\.1, 0\.03 from epoch 2 on")
    history = json.loads((tmp_path / "output" / "resnet_cifar10.json").read_text())
    assert history["learning_rate"] == [0.1, 0.03]


def test_a_history_takes_no_more_than_ten_thousand_changes():
    rate = LearningRate(decay=lambda epoch: 1.0)
    rate.history["run"] = {"arguments": {"lr": 0.1}, "learning_rate_changes": [[0, 1, 0.1]] * 10_000}
    with pytest.raises(ValueError, match="10,000"):
        rate.change(0.01, 0, 2)


def test_what_is_not_a_request_to_this_run_is_named_and_ignored(command, straight, tmp_path, monkeypatch):
    output = tmp_path / "output"
    output.mkdir()
    good = {"run": new_identity(), "action": "lr", "lr": 0.5}
    contents = {
        json.dumps(good): "another run",
        json.dumps(good | {"action": "rm"}): "rm",
        json.dumps(good | {"action": "save"}): "save",
        json.dumps(good | {"lr": -1}): "-1",
        json.dumps(good | {"lr": None}): "None",
        json.dumps(good | {"lr": 1e39}): "1e\\+39",
        json.dumps(good | {"more": 1}): "more",
        json.dumps({"run": "x", "action": "status", "lr": None}): "status",
        "{": "JSON",
        "[]": r"\[\]",
    }
    parts = {}

    def place():
        name = f".resnet_cifar10.{new_identity()}.request"
        return name, output / name

    for content, part in contents.items():
        name, path = place()
        path.write_text(content)
        parts[name] = part
    for part, create in {
        "link": lambda path: path.symlink_to("/etc/passwd"),
        "[Rr]egular": os.mkfifo,
        "irectory": lambda path: path.mkdir(),
        "4,096": lambda path: (path.touch(), os.truncate(path, 1 << 30)),
    }.items():
        name, path = place()
        create(path)
        parts[name] = part
    (output / ".resnet_cifar10.evil\x1b[2J.request").write_text(json.dumps(good))
    parts[r".resnet_cifar10.evil\x1b[2J.request"] = "name"
    (output / ".train.x.request").write_text("of another script")
    before = set(names(output))
    monkeypatch.setattr(carrying_out, "_PAUSE", 0.0)
    done = command(BY_HAND, *RUN, "-c", "c")
    lines = done.stderr.splitlines()
    assert len(lines) == len(parts)  # each once
    for name, part in parts.items():
        (line,) = (line for line in lines if name in line)
        assert re.search(part, line.partition(name)[2]), line
    assert before < set(names(output))
    for path in output.glob(".resnet*.request"):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    (output / ".train.x.request").unlink()
    assert_same_end(straight(), tmp_path / "c", output)
