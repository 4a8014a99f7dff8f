"""Learning rates set by an edited script, a Keras scheduler, or by hand."""

import json

import pytest
from conftest import SMALL
from editing import CALLBACKS, OPTIMIZER, OPTIMIZERS, SCRIPT
from messages import TO, assert_names, assert_refused


def test_a_rate_changed_by_hand_outlives_the_one_in_the_script(edited, command, tmp_path):
    script = edited(OPTIMIZER, OPTIMIZERS["Adam"])
    done = command(script, *SMALL, "--epochs", "3", "--stop_after", "1")
    assert_names(done.stdout.partition("\nepoch 1/")[0], r"\b0\.001\b")
    command(script, "-m", "latest", "--lr", "0.0002", "--stop_after", "2")
    command(script, "-m", "latest")
    history = json.loads((tmp_path / "output" / f"{SCRIPT[:-3]}.json").read_text())
    assert history["learning_rate"] == [0.001, 0.0002, 0.0002]
    assert history["run"]["learning_rate_changes"] == [[1, 0, 0.0002]]


def test_keras_own_scheduler_sets_the_rate_of_a_decay(edited, command, tmp_path):
    script = edited(
        "LearningRate(decay=recipe.decay)",
        "keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (1 + epoch))",
        "resnet_cifar10_decay.py",
    )
    command(script, *SMALL, "--epochs", "2", "-m", "m.hdf5", "--stop_after", "1")
    command(script, "-m", "m.hdf5", "--resume")
    history = json.loads((tmp_path / "output" / "resnet_cifar10_decay.json").read_text())
    assert history["learning_rate"] == [0.1, 0.05]
    done = command(script, "-m", "m.hdf5", "--resume", "--lr", "0.5", code=2)
    assert_refused(done, "--lr 0.5", "LearningRateScheduler")


@pytest.mark.parametrize("warmup_epochs", [pytest.param("0", marks=pytest.mark.sweep), "2"])
def test_a_scheduler_that_goes_by_the_present_rate_changes_it_once_an_epoch(edited, check, tmp_path, warmup_epochs):
    """A resume inside an epoch calls on_epoch_begin again; the rate, halved before the stop, isn't halved twice."""
    halving = "keras.callbacks.LearningRateScheduler(lambda epoch, lr: lr * 0.5 if epoch else lr)"
    check(edited(CALLBACKS, f"{CALLBACKS}\n        {halving},"), "--warmup_epochs", warmup_epochs)
    history = json.loads((tmp_path / "killed" / f"{SCRIPT[:-3]}.json").read_text())
    assert history["learning_rate"] == [0.1 if warmup_epochs == "0" else 0.05, 0.05]


def test_a_rate_that_falls_on_a_plateau_is_not_set_back(edited, command, tmp_path):
    falling = "monitor='learning_rate', mode='min', factor=0.5, patience=1, min_delta=1.0"
    script = edited(CALLBACKS, f"{CALLBACKS}\n        keras.callbacks.ReduceLROnPlateau({falling}),")
    command(script, *SMALL, "--epochs", "4")
    path = tmp_path / "output" / f"{SCRIPT[:-3]}.json"
    assert json.loads(path.read_text())["learning_rate"][-1] < 0.05
    # The given rate is compared with the current one, not with the initial one.
    done = command(script, "-m", "latest", "--epochs", "5", "--lr", "0.1")
    assert_names(done.stdout, rf"\b0\.0\d+ {TO} 0\.1\b")
    assert json.loads(path.read_text())["learning_rate"][-1] == 0.1
