"""Requests to a run from other processes: the rate, a checkpoint, a stop, where it is."""

import json
import os
import random
import re
import subprocess
import sys
import time

import pytest
from conftest import CHECKPOINTS, ROOT, SMALL, assert_identical, assert_same_curves, names
from messages import TO, assert_names, assert_refused
from stopping import BY_HAND, DECAY, RUN, assert_same_end, wait_for_epoch

from pipeline.callbacks import LearningRate, steering
from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.folder import list_checkpoints
from pipeline.files.lock import Lock
from pipeline.files.requests import RequestFolder, new_identity

STEER = "pipeline/steer.py"


@pytest.fixture
def folder(tmp_path):
    """Return the requests to a run of the by-hand script in this test's folder."""
    return RequestFolder(tmp_path / "output", "resnet_cifar10")


@pytest.fixture
def killed(monkeypatch):
    """End the run in this process at its first answer, as SIGKILL would: nothing is answered after that."""

    def kill(self, request, answer):
        raise SystemExit(9)

    monkeypatch.setattr(RequestFolder, "answer", kill)
    monkeypatch.setattr(steering, "close", lambda folder, run, end: None)


def changes(path):
    return read_checkpoint(path).history["run"]["learning_rate_changes"]


@pytest.mark.parametrize(("kind", "number", "change"), [("train", 2, [0, 2, 0.02]), ("test", 2, [1, 0, 0.02])])
def test_a_requested_rate_is_that_of_the_menu(
    command, ask_at, stop_at, typed, monkeypatch, tmp_path, folder, kind, number, change
):
    stop_at(kind, number)
    typed(0.02)
    command(BY_HAND, *RUN, "-o", "menu", "-c", "menu")
    monkeypatch.undo()
    asked = ask_at(kind, number, "lr", 0.02)
    done = command(BY_HAND, *RUN)
    answer = folder.take_answer(asked[0])
    point = "after epoch 0, batch 2" if kind == "train" else "from epoch 2 on"
    assert_names(answer.text, rf"learning rate 0\.1 {TO} 0\.02 {point}$")
    assert answer.code == 0
    assert_names(done.stdout, rf"learning rate 0\.1 {TO} 0\.02")
    assert changes(tmp_path / CHECKPOINTS / "epoch_2.hdf5") == [change]
    assert_identical(tmp_path / "menu" / "epoch_2.hdf5", tmp_path / CHECKPOINTS / "epoch_2.hdf5")
    assert_same_curves(tmp_path / "menu", tmp_path / "output")
    left = [".resnet_cifar10.lock", "resnet_cifar10", "resnet_cifar10.json", "resnet_cifar10.png"]
    assert names(tmp_path / "output") == left


def test_a_run_killed_after_the_save_and_before_the_answer_answers_when_it_is_resumed(
    command, ask_at, killed, monkeypatch, tmp_path, folder
):
    asked = ask_at("train", 2, "lr", 0.02)
    command(BY_HAND, *RUN, code=9)
    monkeypatch.undo()
    assert folder.take_answer(asked[0]) is None
    assert changes(*list_checkpoints(tmp_path / CHECKPOINTS)) == [[0, 2, 0.02]]
    command(BY_HAND, "-m", "latest")
    assert_names(folder.take_answer(asked[0]).text, rf"0\.1 {TO} 0\.02 after epoch 0, batch 2")
    assert changes(tmp_path / CHECKPOINTS / "epoch_2.hdf5") == [[0, 2, 0.02]]


@pytest.mark.parametrize("new_rate", [(), ("--lr", "0.05")])
def test_a_run_killed_before_it_looked_changes_the_rate_when_it_is_resumed_unless_that_sets_another(
    command, ask_at, killed, monkeypatch, tmp_path, folder, new_rate
):
    monkeypatch.setattr(steering.Steering, "is_asked", lambda self: False)
    asked = [ask_at("train", 6, action, lr) for action, lr in (("status", None), ("lr", 0.02), ("stop", None))]
    command(BY_HAND, *RUN, "--epochs", "3", "--stop_after", "2")
    monkeypatch.undo()
    command(BY_HAND, "-m", "latest", *new_rate)
    status, lr, stop = (folder.take_answer(request) for (request,) in asked)
    assert status.code == stop.code == 2  # they were for the process that has ended
    if new_rate:
        assert lr.code == 2
        assert_names(lr.text, r"0\.02", r"0\.05")
        assert changes(tmp_path / CHECKPOINTS / "epoch_3.hdf5") == [[2, 0, 0.05]]
    else:
        assert_names(lr.text, rf"0\.1 {TO} 0\.02 after epoch 2, batch 1")
        assert changes(tmp_path / CHECKPOINTS / "epoch_3.hdf5") == [[2, 1, 0.02]]


def test_two_rates_at_one_batch_are_two_changes(command, ask_at, tmp_path, folder):
    asked = ask_at("train", 3, "lr", 0.02, times=2)
    command(BY_HAND, *RUN)
    assert changes(tmp_path / CHECKPOINTS / "epoch_2.hdf5") == [[0, 3, 0.02]] * 2
    assert [folder.take_answer(request).code for request in asked] == [0, 0]


def test_with_a_decay_the_requested_rate_is_the_current_one_and_the_last_epoch_takes_none(command, ask_at, tmp_path):
    early = ask_at("train", 6, "lr", 0.01, "resnet_cifar10_decay")
    late = ask_at("test", 7, "lr", 0.01, "resnet_cifar10_decay")
    command(DECAY, *RUN, "-m", "m.hdf5")
    folder = RequestFolder(tmp_path / "output", "resnet_cifar10_decay")
    assert folder.take_answer(early[0]).code == 0
    assert_names(folder.take_answer(late[0]).text, "epoch 2, the last")
    history = json.loads((tmp_path / "output" / "resnet_cifar10_decay.json").read_text())
    assert history["learning_rate"] == [pytest.approx(0.1), pytest.approx(0.01)]
    assert history["run"]["arguments"]["lr"] == pytest.approx(0.02)


def test_a_request_to_save_and_one_for_the_status_change_nothing(command, ask_at, straight, tmp_path, folder):
    (tmp_path / "output").mkdir()
    save, status = ask_at("train", 6, "save"), ask_at("train", 7, "status")
    command(BY_HAND, *RUN, "-c", "c")
    answer = folder.take_answer(save[0])
    assert_names(answer.text, "saved c/epoch_1_batch_2.hdf5")
    assert answer.code == 0
    answer = folder.take_answer(status[0])
    assert_names(
        answer.text, "epoch 2\\b", "batch 3 of 4", r"learning rate 0\.1\b", "epoch 1: loss", "epoch_1_batch_2.hdf5"
    )
    assert_same_end(straight(), tmp_path / "c", tmp_path / "output")


@pytest.mark.parametrize(("kind", "left"), [("train", "epoch_0_batch_3.hdf5"), ("test", "epoch_0_batch_4.hdf5")])
def test_a_request_to_stop_is_a_sigterm(command, ask_at, straight, monkeypatch, tmp_path, folder, kind, left):
    asked = ask_at(kind, 3, "stop")
    command(BY_HAND, *RUN, "-c", "c", code=143)
    monkeypatch.undo()
    answer = folder.take_answer(asked[0])
    assert_names(answer.text, "stopped", left)
    assert answer.code == 0
    command(BY_HAND, "-c", "c", "-m", "latest")
    assert_same_end(straight(), tmp_path / "c", tmp_path / "output")


def test_a_change_that_can_not_be_saved_says_so(command, ask_at, monkeypatch, folder):
    from pipeline.checkpoints import folder as checkpoints

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_checkpoint", full)
    asked = ask_at("train", 2, "lr", 0.02)
    command(BY_HAND, *RUN, code=1)
    answer = folder.take_answer(asked[0])
    assert_names(answer.text, rf"0\.1 {TO} 0\.02", "not saved")
    assert answer.code == 1


def test_a_history_takes_no_more_than_ten_thousand_changes():
    rate = LearningRate(decay=lambda epoch: 1.0)
    rate.history["run"] = {"arguments": {"lr": 0.1}, "learning_rate_changes": [[0, 1, 0.1]] * 10_000}
    with pytest.raises(ValueError, match="10,000"):
        rate.change(0.01, 0, 2)


def test_what_is_not_a_request_to_this_run_is_named_and_ignored(command, straight, tmp_path, folder, monkeypatch):
    hostile = folder.path
    hostile.mkdir(parents=True)
    good = {"run": new_identity(), "action": "lr", "lr": 0.5}
    valid = [f"{new_identity()}.request" for _ in range(9)]
    (hostile / valid[0]).write_text(json.dumps(good))  # of another run
    (hostile / valid[1]).symlink_to("/etc/passwd")
    os.mkfifo(hostile / valid[2])
    (hostile / valid[3]).mkdir()
    with open(hostile / valid[4], "wb") as huge:
        huge.truncate(1 << 30)
    for number, content in enumerate(("{", "[]", json.dumps(good | {"action": "rm"}), json.dumps(good | {"lr": -1}))):
        (hostile / valid[5 + number]).write_text(content)
    (hostile / "evil\x1b[2J.request").write_text(json.dumps(good))
    (hostile / "x.answer").mkdir()
    (hostile / f"{new_identity()}.run").symlink_to("/etc/passwd")
    before = names(hostile)
    monkeypatch.setattr(steering, "_PAUSE", 0.0)
    done = command(BY_HAND, *RUN, "-c", "c")
    lines = done.stderr.splitlines()
    for name, part in zip(
        (*valid, r"evil\\x1b"),
        ("another run", "link", "egular", "irectory", "4,096", "", "", "rm", "-1", "name"),
        strict=True,
    ):
        (line,) = (line for line in lines if re.search(name, line))  # once
        assert part in line
    assert names(hostile) == [name for name in before if not name.endswith(".run")]
    assert_same_end(straight(), tmp_path / "c", tmp_path / "output")


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_run_whose_request_folder_is_none_says_so_and_goes_on(command, straight, tmp_path, folder, kind):
    folder.output.mkdir()
    (tmp_path / "elsewhere").mkdir()
    if kind == "link":
        folder.path.symlink_to(tmp_path / "elsewhere")
    else:
        folder.path.touch()
    done = command(BY_HAND, *RUN, "-c", "c")
    assert_refused(done, re.escape(str(folder.path.name)))
    assert names(tmp_path / "elsewhere") == []
    assert_same_end(straight(), tmp_path / "c", tmp_path / "output")


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o770])
def test_only_those_who_can_write_to_the_output_can_ask(tmp_path, mode):
    mask = os.umask(0)
    try:
        tmp_path.chmod(mode)
        folder = RequestFolder(tmp_path, "train")
        folder.open(new_identity())
        assert folder.path.stat().st_mode & 0o777 == mode
    finally:
        os.umask(mask)


def test_without_a_run_the_command_says_so(command, tmp_path):
    assert_refused(command(STEER, "output", "--status", code=2), "output")
    (tmp_path / "output").mkdir()
    assert_refused(command(STEER, "output", "--status", code=2), "no run .*output")
    (tmp_path / "output" / ".train.lock").touch()  # of a run that has ended
    assert_refused(command(STEER, "output", "--lr", "0.1", code=2), "no run .*output")
    assert_refused(command(STEER, "output", "--script", "train", "--stop", code=2), "no run .*train")
    with Lock(tmp_path / "output", ".train.lock"), Lock(tmp_path / "output", ".train_decay.lock"):
        assert_refused(command(STEER, "output", "--save", code=2), "train, train_decay", "--script")
        assert_refused(command(STEER, "output", "--script", "train.py", "--save", code=2), "no requests")
    assert_refused(command(STEER, "output", "--lr", "0", code=2), "--lr")
    assert_refused(command(STEER, "output", "--lr", "1", "--stop", code=2), "--lr", "--stop")
    assert_refused(command(STEER, "output", code=2), "--lr", "--status")


@pytest.mark.parametrize("action", [("--lr", "0.1"), ("--save",)])
def test_a_run_that_ends_without_an_answer_ends_the_command(tmp_path, action):
    lock = Lock(tmp_path, ".train.lock")
    folder = RequestFolder(tmp_path, "train")
    with lock:
        folder.open(new_identity())
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.steer", tmp_path, *action], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        while not list(folder.path.glob("*.request")):
            assert process.poll() is None
            time.sleep(0.01)
    start = time.monotonic()
    assert "ended" in process.communicate()[1]
    assert process.returncode == 2
    assert time.monotonic() - start < 5
    # The rate may be in a checkpoint already, so only the run knows.
    assert len(list(folder.path.glob("*.request"))) == (action[0] == "--lr")


def test_from_another_shell_a_run_is_asked_changed_and_stopped(started, tmp_path):
    run = started(BY_HAND, *SMALL, "--epochs", "100000", "--every", "100000")
    wait_for_epoch(run)

    def steer(*words):
        command = [sys.executable, "-m", "pipeline.steer", tmp_path / "output", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert_names(steer("--status"), r"learning rate 0\.1\b", "100000")
    assert_names(steer("--lr", "0.02"), rf"^learning rate 0\.1 {TO} 0\.02 after epoch \d+, batch \d$|from epoch")
    assert_names(steer("--status"), r"learning rate 0\.02\b")
    assert_names(steer("--stop"), "stopped", "epoch_")
    assert run.wait(60) == 143
    (((_, _, rate),),) = (changes(path) for path in list_checkpoints(tmp_path / CHECKPOINTS))
    assert rate == 0.02


@pytest.mark.torture
@pytest.mark.parametrize(("backend", "seed"), [("tensorflow", 1), ("tensorflow", 2), ("jax", 3)])
def test_under_fire_each_change_is_made_once_and_the_run_is_that_of_the_menu(tmp_path, backend, seed, record_property):
    """Make 50 requests at random moments, and kill run and command at others; then make the changes at the menu."""
    dice, output = random.Random(seed), tmp_path / "output"  # noqa: S311
    answered, promised, forbidden = set(), set(), set()
    runs, kills = [], {"run": 0, "command": 0}
    here = os.environ | {"KERAS_BACKEND": backend}

    def start():
        words = ["-m", "latest"] if runs else (*SMALL, "--epochs", "100000", "--every", "7")
        log = open(tmp_path / f"log-{len(runs)}", "w")  # noqa: SIM115
        words = [sys.executable, ROOT / BY_HAND, *words]
        runs.append(subprocess.Popen(words, cwd=tmp_path, env=here, stdout=log, stderr=log))

    def steer(*words):
        command = [sys.executable, "-m", "pipeline.steer", output, *map(str, words)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ask_until_done(*words):
        while steer(*words).wait() != 0:
            assert runs[-1].poll() is None
            time.sleep(0.5)

    try:
        start()
        ask_until_done("--save")
        for number in range(50):
            rate = round(0.001 + 0.0001 * number, 4)
            time.sleep(dice.uniform(0, 0.5))
            command = steer("--lr", rate)
            kill_command, kill_run = dice.random() < 0.25, dice.random() < 0.25
            for _ in range(2):  # in random order, at random moments
                time.sleep(dice.uniform(0, 0.25))
                victim = dice.choice(("command", "run"))
                if victim == "command" and kill_command:
                    command.kill()
                    kills["command"], kill_command = kills["command"] + 1, False
                elif victim == "run" and kill_run:
                    runs[-1].kill()
                    runs[-1].wait()
                    kills["run"], kill_run = kills["run"] + 1, False
            errors = command.communicate()[1]
            if command.returncode == 0:
                answered.add(rate)
            elif "if it is resumed" in errors:
                promised.add(rate)
            elif command.returncode == 2:
                forbidden.add(rate)
            if runs[-1].poll() is not None:
                start()
                if dice.random() < 0.8:  # else the next requests come while it starts
                    ask_until_done("--status")
        ask_until_done("--status")
        ask_until_done("--stop")
        assert runs[-1].wait(60) == 143
    finally:
        for run in runs:
            run.kill()
    (end,) = list_checkpoints(tmp_path / CHECKPOINTS)[-1:]
    checkpoint = read_checkpoint(end)
    made = checkpoint.history["run"]["learning_rate_changes"]
    rates = [rate for _, _, rate in made]
    assert len(rates) == len(set(rates))
    assert answered | promised <= set(rates)
    assert not forbidden & set(rates)
    for log in tmp_path.glob("log-*"):
        assert "Traceback" not in log.read_text()
    record_property("kills", kills | {"answered": len(answered), "promised": len(promised), "made": len(made)})

    (tmp_path / "menu").mkdir()
    plan = json.dumps({"changes": made, "end": checkpoint.progress, "steps": checkpoint.history["run"]["steps"]})
    words = [sys.executable, ROOT / "tests" / "atmenu.py", plan, ROOT / BY_HAND, *SMALL, "--epochs", "100000"]
    done = subprocess.run([*words, "--every", "7"], cwd=tmp_path / "menu", env=here, capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    assert_identical(end, list_checkpoints(tmp_path / "menu" / CHECKPOINTS)[-1])
