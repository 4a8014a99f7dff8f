"""Stop runs at every batch, and at every step of every save; steer one under fire."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from itertools import count

import pytest
from conftest import CHECKPOINTS, PAGED, ROOT, assert_identical
from stopping import BY_HAND, STOPPED, assert_nothing_lost, start

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.listing import list_checkpoints


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


@pytest.mark.torture
@pytest.mark.parametrize(("backend", "seed"), [("tensorflow", 1), ("tensorflow", 2), ("jax", 3)])
def test_under_fire_each_change_is_made_once_and_the_run_is_that_of_the_menu(tmp_path, backend, seed, record_property):
    """Make 50 requests at random moments, and kill run and command at others; then make the changes at the menu."""
    dice, output = random.Random(seed), tmp_path / "output"  # noqa: S311
    answered, promised, forbidden = set(), set(), set()
    runs, kills = [], {"run": 0, "command": 0}
    here = os.environ | {"KERAS_BACKEND": backend}

    def launch():
        words = ["-m", "latest"] if runs else (*PAGED, "--epochs", "100000", "--every", "7")
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
        launch()
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
                launch()
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
    words = [sys.executable, ROOT / "tests" / "atmenu.py", plan, ROOT / BY_HAND, *PAGED, "--epochs", "100000"]
    done = subprocess.run([*words, "--every", "7"], cwd=tmp_path / "menu", env=here, capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    assert_identical(end, list_checkpoints(tmp_path / "menu" / CHECKPOINTS)[-1])
