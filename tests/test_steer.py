"""Requests to a run from other processes: the rate, a checkpoint, a stop, where it is."""

import errno
import fcntl
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import CHECKPOINTS, ROOT, SMALL, assert_identical, assert_same_curves, names
from messages import TO, assert_names, assert_refused
from stopping import BY_HAND, DECAY, RUN, assert_same_end, wait_for_epoch

from pipeline.callbacks import LearningRate, steering
from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.folder import list_checkpoints
from pipeline.errors import InputError
from pipeline.files.lock import Lock
from pipeline.files.requests import Answer, Inbox, Question
from pipeline.steer import running_in
from pipeline.utils.identity import new_identity

STEER = "pipeline/steer.py"


@pytest.fixture
def killed(monkeypatch):
    """End the run in this process just before its first answer."""

    def kill(self, request, answer):
        raise SystemExit(9)

    monkeypatch.setattr(Inbox, "answer", kill)


def changes(path):
    return read_checkpoint(path).history["run"]["learning_rate_changes"]


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
    left = [".resnet_cifar10.lock", "resnet_cifar10", "resnet_cifar10.json", "resnet_cifar10.png"]
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
    monkeypatch.setattr(steering.Steering, "is_asked", lambda self: False)
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
    monkeypatch.setattr(steering, "_PAUSE", 0.0)
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


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_only_those_who_can_write_to_the_output_can_ask():
    with tempfile.TemporaryDirectory() as name:
        output = Path(name)
        output.chmod(0o755)
        inbox = Inbox(output, "train", new_identity())
        with lock_of(output, "train"):
            os.seteuid(65534)
            try:
                assert running_in(output / ".train.lock")  # they see that a run is there
                with pytest.raises(InputError, match="denied"):
                    asked(output, "train", inbox.run, "stop")
            finally:
                os.seteuid(0)
        assert inbox.pending() == []
        assert names(output) == [".train.lock"]


def test_a_private_umask_hides_no_request_from_the_run_and_no_answer_from_the_one_who_asked(tmp_path):
    mask = os.umask(0o077)
    try:
        inbox = Inbox(tmp_path, "train", new_identity())
        question = asked(tmp_path, "train", inbox.run, "save")
        (request,) = inbox.pending()
        assert inbox.take(request)
        assert (tmp_path / f".train.{request.id}.taken").stat().st_mode & 0o777 == 0o644
        inbox.answer(request, Answer("done"))
        assert (tmp_path / f".train.{request.id}.answer").stat().st_mode & 0o777 == 0o644
        assert question.take_answer() == Answer("done", 0)
        assert names(tmp_path) == []
    finally:
        os.umask(mask)


def test_a_lock_never_writes_through_a_link(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(Lock, "_has_warned", False)
    thesis = tmp_path / "thesis"
    thesis.write_text("mine")
    for create in (Path.symlink_to, Path.hardlink_to):
        (tmp_path / ".train.lock").unlink(missing_ok=True)
        create(tmp_path / ".train.lock", thesis)
        with lock_of(tmp_path, "train"):
            assert thesis.read_text() == "mine"
    assert "can't lock" in caplog.text


def test_a_request_is_either_taken_or_withdrawn(tmp_path):
    inbox = Inbox(tmp_path, "train", new_identity())
    question = asked(tmp_path, "train", inbox.run, "lr", 0.1)
    (request,) = inbox.pending()
    assert question.withdraw()
    assert not inbox.take(request)
    question = asked(tmp_path, "train", inbox.run, "lr", 0.1)
    (request,) = inbox.pending()
    assert inbox.take(request)
    assert not question.withdraw()
    assert question.is_open()
    assert inbox.pending() == []
    assert inbox.leftovers() == [request]
    assert inbox.take(request)  # as the resumed run does


def test_a_look_lists_the_folder_only_if_it_has_changed(tmp_path, monkeypatch):
    inbox, start = Inbox(tmp_path, "train", new_identity()), time.monotonic()
    assert inbox.pending() == []
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", lambda path: pytest.fail("listed"))
        assert inbox.pending() == []
    os.utime(tmp_path, ns=(0, 1))
    question = asked(tmp_path, "train", inbox.run, "save")
    os.utime(tmp_path, ns=(0, 2))
    assert inbox.pending() == [question.request]
    # A file system with a coarse clock.
    later = asked(tmp_path, "train", inbox.run, "stop")
    os.utime(tmp_path, ns=(0, 2))
    assert inbox.pending() == []
    monkeypatch.setattr(time, "monotonic", lambda: start + 10)
    assert inbox.pending() == [question.request, later.request]


def test_without_a_run_the_command_says_so(command, tmp_path):
    assert_refused(command(STEER, "output", "--status", code=2), "output", "exist")
    (tmp_path / "output").mkdir()
    assert_refused(command(STEER, "output", "--status", code=2), "no run .*output")
    with lock_of(tmp_path / "output", "train"):
        pass  # a run that has ended
    os.mkfifo(tmp_path / "output" / ".pipe.lock")
    assert_refused(command(STEER, "output", "--lr", "0.1", code=2), "no run .*output")
    assert_refused(command(STEER, "output", "--script", "train", "--stop", code=2), "no run .*train")
    with lock_of(tmp_path / "output", "train"), lock_of(tmp_path / "output", "train_decay"):
        assert_refused(command(STEER, "output", "--save", code=2), "train, train_decay", "--script")
    with Lock(tmp_path / "output", ".train.lock"):  # a run of an earlier version
        assert_refused(command(STEER, "output", "--script", "train.py", "--save", code=2), "no run")
    assert_refused(command(STEER, "output", "--lr", "0", code=2), "--lr")
    assert_refused(command(STEER, "output", "--lr", "1", "--stop", code=2), "--lr", "--stop")
    assert_refused(command(STEER, "output", code=2), "--lr", "--status")


@contextmanager
def lock_of(output, script):
    """Lock a folder as a run of `script` does; yield the run's identity."""
    with Lock(output, f".{script}.lock") as lock:
        lock.describe(f", run {(run := new_identity())}")
        yield run


def asked(*arguments):
    """Leave a request, and return it as the one who asks sees it."""
    question = Question.of(*arguments)
    question.ask()
    return question


@pytest.fixture
def asking(tmp_path):
    """Start the command while a run has locked the folder; return the process and the path of the request."""
    (tmp_path / "output").mkdir()
    processes = []

    def start(*action):
        words = [sys.executable, "-m", "pipeline.steer", tmp_path / "output", *action]
        processes.append(subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        while not (found := list((tmp_path / "output").glob(".train.*.request"))):
            assert processes[-1].poll() is None
            time.sleep(0.01)
        return processes[-1], found[0]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("is_taken", [True, False])
def test_a_run_that_is_killed_ends_the_command_which_tells_the_truth(asking, tmp_path, is_taken):
    with lock_of(tmp_path / "output", "train"):
        process, request = asking("--lr", "0.1")
        if is_taken:
            request.rename(request.with_suffix(".taken"))
    start = time.monotonic()
    assert ("newest checkpoint" if is_taken else "nothing was done") in process.communicate()[1]
    assert process.returncode == 2
    assert time.monotonic() - start < 5
    assert not request.exists()
    assert request.with_suffix(".taken").exists() == is_taken


def test_another_run_in_the_folder_or_a_removed_request_ends_the_command(asking, tmp_path):
    with lock_of(tmp_path / "output", "train"):
        removed, request = asking("--save")
        request.unlink()
        assert "removed" in removed.communicate()[1]
        replaced, request = asking("--save")
    with lock_of(tmp_path / "output", "train"):
        assert "nothing was done" in replaced.communicate()[1]
    assert removed.returncode == replaced.returncode == 2


def test_ctrl_c_withdraws_the_request(asking, tmp_path):
    with lock_of(tmp_path / "output", "train"):
        process, request = asking("--stop")
        process.send_signal(signal.SIGINT)
        assert "withdrawn" in process.communicate()[1]
        assert process.returncode == 130
        assert not request.exists()


@pytest.mark.parametrize(("code", "stream"), [(0, 0), (1, 1), (2, 1)])
def test_the_answer_is_printed_and_its_code_is_the_command_s(asking, tmp_path, code, stream):
    with lock_of(tmp_path / "output", "train") as run:
        process, _ = asking("--save")
        inbox = Inbox(tmp_path / "output", "train", run)
        (found,) = inbox.pending()
        inbox.take(found)
        inbox.answer(found, Answer("an answer\x1b", code))
        assert "an answer\\x1b" in process.communicate()[stream]
    assert process.returncode == code


@pytest.mark.sweep
def test_without_locks_a_request_that_no_run_takes_is_withdrawn_after_5_seconds(command, tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *arguments: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks")))
    monkeypatch.setattr(Lock, "_has_warned", True)
    (tmp_path / "output").mkdir()
    with lock_of(tmp_path / "output", "train"):
        pass
    start = time.monotonic()
    assert_refused(command(STEER, "output", "--lr", "0.1", code=2), "no run", "nothing was done")
    assert 5 <= time.monotonic() - start < 10
    assert names(tmp_path / "output") == [".train.lock"]


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
            elif "newest checkpoint" in errors:
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
