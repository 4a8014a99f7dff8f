"""The command that steers a run, and its files: who can ask, what is taken, what the command says."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from conftest import CHECKPOINTS, ROOT, SMALL, names
from messages import TO, assert_names, assert_refused
from steering import asked, changes, lock_of
from stopping import BY_HAND, wait_for_epoch

from pipeline.checkpoints.listing import list_checkpoints
from pipeline.errors import InputError
from pipeline.files.lock import Lock
from pipeline.files.requests import Answer, Inbox
from pipeline.steer import running_in
from pipeline.utils.identity import new_identity

STEER = "pipeline/steer.py"


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
