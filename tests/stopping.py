"""Runs stopped by a signal, at a chosen point or from the menu, and the run that never stopped."""

import os
import signal
import subprocess
import sys
from itertools import count
from types import SimpleNamespace

import pytest
from conftest import ROOT, SMALL, assert_identical, assert_same_curves

BY_HAND, DECAY = "resnet_cifar10.py", "resnet_cifar10_decay.py"
# Four training and four validation steps per epoch.
RUN = (*SMALL, "--epochs", "2", "--every", "1")


@pytest.fixture(scope="session")
def straight(tmp_path_factory):
    """Return the folder of the run that never stopped, on the given backend; each is trained once."""
    runs = {}

    def run(backend="tensorflow"):
        if backend not in runs:
            runs[backend] = folder = tmp_path_factory.mktemp(backend)
            command = [sys.executable, ROOT / BY_HAND, *RUN, "-c", folder, "-o", folder]
            subprocess.run(command, check=True, capture_output=True, env=os.environ | {"KERAS_BACKEND": backend})
        return runs[backend]

    return run


def assert_same_end(straight, folder, output):
    """Assert that checkpoints in `folder` and curves in `output` end like the run in `straight`."""
    assert_identical(straight / "epoch_2.hdf5", folder / "epoch_2.hdf5")
    assert_same_curves(straight, output)


@pytest.fixture
def stop_at(monkeypatch):
    """Send this process a signal at the end of the N-th batch of training or validation, counted from 1."""
    from pipeline.callbacks import AsyncCallbackList

    def plan(kind, number, which=signal.SIGINT, times=1):
        batches = count(1)
        original = getattr(AsyncCallbackList, f"on_{kind}_batch_end")

        def with_signal(self, *arguments, **options):
            if next(batches) == number:
                for _ in range(times):
                    os.kill(os.getpid(), which)
            return original(self, *arguments, **options)

        monkeypatch.setattr(AsyncCallbackList, f"on_{kind}_batch_end", with_signal)

    return plan


@pytest.fixture
def typed(monkeypatch):
    """Simulate a terminal for a run in this process; each menu gets the next of the given answers."""
    from pipeline.cli import command, console

    asked = []

    def answer(*answers):
        answers = iter(answers)
        monkeypatch.setattr(command.LossyStream, "isatty", lambda self: True, raising=False)
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
        monkeypatch.setattr(console, "ask", lambda message, given_up: asked.append(message) or next(answers))
        return asked

    return answer


STOPPED = {"SIGINT": 130, "SIGTERM": 143, "SIGKILL": -9, "save": -9}


def launch(folder, kind="none", number=0, backend="tensorflow", workers=2):
    """Start or resume a run in `folder` and stop it at point `number` (see tests/faults.py)."""
    from pipeline.checkpoints.listing import list_checkpoints

    command = [sys.executable, ROOT / "tests" / "faults.py", kind, str(number), ROOT / BY_HAND]
    command += ["-c", folder / "c", "-o", folder / "o", "--workers", str(workers), "--checkpoint_seconds", "0.001"]
    command += ["-m", "latest"] if list_checkpoints(folder / "c") else RUN
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "Traceback" not in done.stderr
    return done


def start(folder, kind="none", *options, **more):
    """Return the exit code of `launch`, which must be 0 or that of a process stopped this way."""
    done = launch(folder, kind, *options, **more)
    assert done.returncode in (0, STOPPED.get(kind)), done.stderr
    return done.returncode


def assert_nothing_lost(straight, folder):
    """Assert that a run in `folder` left no unfinished file, and ends like the run in `straight`."""
    assert not list((folder / "c").glob("*.tmp"))
    assert_same_end(straight, folder / "c", folder / "o")


def wait_for_epoch(process):
    """Wait until a started run has finished its first epoch."""
    while not process.stdout.readline().startswith("epoch 1/"):
        assert process.poll() is None
