"""Stop runs at every batch, and at every step of every save."""

import shutil
from itertools import count

import pytest
from stopping import STOPPED, assert_nothing_lost, start

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.folder import list_checkpoints


@pytest.mark.torture
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
@pytest.mark.parametrize("kind", ["SIGKILL", "SIGINT", "SIGTERM"])
def test_a_run_stopped_at_each_batch_in_turn(straight, tmp_path, kind, backend, workers):
    """Stop one run at batch 1, resume it, stop it at batch 2, and so on through training and validation."""
    for point in range(1, 17):
        done = [read_checkpoint(path) for path in list_checkpoints(tmp_path / "c")[-1:]]
        passed = sum(8 * checkpoint.epoch + checkpoint.batch for checkpoint in done)
        assert start(tmp_path, kind, point - passed, backend, workers) == STOPPED[kind]
    assert start(tmp_path, backend=backend, workers=workers) == 0
    assert_nothing_lost(straight(backend), tmp_path)


@pytest.mark.torture
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
@pytest.mark.parametrize("part", range(8))
def test_a_run_killed_at_each_step_of_its_saves(straight, tmp_path, part, backend, record_property):
    """Stop at every eighth step, starting with `part`, so that parts can run in parallel."""
    stops = 0
    for number in count(part + 1, 8):
        folder = tmp_path / str(number)
        if start(folder, "save", number, backend, workers=1 + stops % 2) == 0:
            break
        assert start(folder, backend=backend) == 0
        assert_nothing_lost(straight(backend), folder)
        shutil.rmtree(folder)
        stops += 1
    assert stops >= 8
    record_property("stops", stops)
