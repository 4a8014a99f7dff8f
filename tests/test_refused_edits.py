"""Edits of a script that checkpoints can't hold, or that contradict a checkpoint."""

import shutil
from pathlib import Path

import pytest
from editing import CALLBACKS, METRICS, OPTIMIZER, OPTIMIZERS, RUN, TOP3
from messages import assert_refused

REFUSED = {
    "a schedule": (
        OPTIMIZER,
        "keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 100))",
        ["SGD", "schedule"],
    ),
    "other shapes": (OPTIMIZER, "keras.optimizers.Adafactor(1e-3)", ["Adafactor", "kernel", "shape"]),
    "averages of Keras": (OPTIMIZER, "keras.optimizers.SGD(0.1, use_ema=True)", ["SGD", "use_ema"]),
    "several steps at once": (
        METRICS,
        f"{METRICS}, steps_per_execution=2",
        ["steps_per_execution", r"\b2\b", r"\b1\b"],
    ),
    "a rate of nothing": (OPTIMIZER, "keras.optimizers.SGD(0.0)", ["SGD", "learning.rate", r"\b0\b"]),
    "a precision of its own": ("args.precision)", "'mixed_float16')", ["mixed_float16", r"\bfloat32"]),
    "a giant metric": (METRICS, 'metrics=[keras.metrics.AUC(20_000, name="a")]', ["metrics", "80,002"]),
    "a metric of many numbers": (METRICS, 'metrics=[keras.metrics.F1Score(name="f1")]', [r"\bf1\b", r"\b10\b"]),
    "a reserved name": (METRICS, 'metrics=[keras.metrics.Recall(name="seconds")]', ["metric", "'seconds'"]),
    "the name of a curve": (METRICS, 'metrics=[keras.metrics.Recall(name="val_loss")]', ["metric", "'val_loss'"]),
    "best weights": (
        CALLBACKS,
        f"{CALLBACKS}\n        keras.callbacks.EarlyStopping(restore_best_weights=True),",
        ["EarlyStopping", "restore_best_weights"],
    ),
    "another folder": (
        "EpochCheckpoint(run.folder,",
        "EpochCheckpoint('elsewhere',",
        ["EpochCheckpoint", r"\belsewhere\b", "output/resnet_cifar10/checkpoints"],
    ),
    "another restore": (
        CALLBACKS,
        f"{CALLBACKS}\n        keras.callbacks.BackupAndRestore('b'),",
        ["BackupAndRestore"],
    ),
    "a model of one's own": (
        "    warmup_steps =",
        "    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten()])\n    warmup_steps =",
        ["ResNet.build"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_checkpoint_can_hold_is_refused_before_training(edited, command, tmp_path, name):
    before, after, parts = REFUSED[name]
    assert_refused(command(edited(before, after), *RUN, code=2), *parts)
    assert not list(tmp_path.rglob("*.hdf5"))


def test_a_warm_up_is_that_of_one_optimizer_alone(edited, command):
    done = command(edited(OPTIMIZER, OPTIMIZERS["Adam"]), *RUN, "--warmup_epochs", "1", code=2)
    assert_refused(done, "--warmup_epochs 1", "Adam", "WarmupSGD")


CHANGED = {
    "another optimizer": (OPTIMIZER, OPTIMIZERS["Adam"], ["WarmupSGD", "Adam"]),
    "another value": (OPTIMIZER, OPTIMIZER.replace("args.momentum", "0.5"), ["momentum", r"\b0\.9\b", r"\b0\.5\b"]),
    "a metric more": (METRICS, TOP3, ["metrics", "'top3/total'"]),
}


@pytest.fixture
def stopped(straight, tmp_path):
    """Return a folder with the checkpoint of the unedited script after one of two epochs."""
    (tmp_path / "stopped").mkdir()
    return Path(shutil.copy(straight() / "epoch_1.hdf5", tmp_path / "stopped")).parent


@pytest.mark.parametrize("name", CHANGED)
def test_a_script_that_was_edited_on_the_way_is_named_by_its_first_difference(edited, command, stopped, name):
    before, after, parts = CHANGED[name]
    assert_refused(command(edited(before, after), "-c", stopped, "-m", "latest", code=2), *parts)
