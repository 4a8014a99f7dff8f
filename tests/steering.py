"""Requests to a run: made at a chosen batch of one in this process, or without a run."""

from contextlib import contextmanager
from itertools import count

import pytest

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.files.lock import Lock
from pipeline.files.requests import Question
from pipeline.steer import running_in
from pipeline.utils.identity import new_identity


@pytest.fixture
def ask_at(monkeypatch, tmp_path):
    """Ask the run in this process at the end of the N-th batch of training or validation, counted from 1."""
    from pipeline.callbacks import AsyncCallbackList, steering

    def plan(kind, number, action, lr=None, script="resnet_cifar10", times=1):
        monkeypatch.setattr(steering, "_PAUSE", 0.0)
        batches, asked = count(1), []
        original = getattr(AsyncCallbackList, f"on_{kind}_batch_end")

        def asking(self, *arguments, **options):
            if next(batches) == number:
                run = running_in(tmp_path / "output" / f".{script}.lock")
                for _ in range(times):
                    asked.append(Question.of(tmp_path / "output", script, run, action, lr))
                    asked[-1].ask()
            return original(self, *arguments, **options)

        monkeypatch.setattr(AsyncCallbackList, f"on_{kind}_batch_end", asking)
        return asked

    return plan


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


def changes(path):
    return read_checkpoint(path).history["run"]["learning_rate_changes"]
