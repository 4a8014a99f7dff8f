"""Requests to a run in this process, made at a chosen batch."""

from itertools import count

import pytest

from pipeline.files.requests import Question
from pipeline.steer import running_in


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
