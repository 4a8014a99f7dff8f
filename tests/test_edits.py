"""Stop, resume, plot and checkpoints with another optimizer, metric or callback in a script."""

import csv
import json
import os
import signal
import subprocess
import sys
from itertools import count

import pytest
from conftest import ROOT, SMALL, assert_identical, assert_same_curves
from editing import CALLBACKS, METRICS, OPTIMIZER, OPTIMIZERS, RUN, SCRIPT, TOP3

from pipeline.callbacks import AsyncCallbackList
from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.listing import list_checkpoints

FURTHER = {
    "Nadam": "keras.optimizers.Nadam(1e-3, clipnorm=1.0)",
    "Adam, accumulating": "keras.optimizers.Adam(1e-3, amsgrad=True, gradient_accumulation_steps=3)",
    "Lion": "keras.optimizers.LossScaleOptimizer(keras.optimizers.Lion(1e-4))",
}
RECALL = 'metrics=[keras.metrics.Recall(name="recall"), keras.metrics.AUC(name="auc")]'
# Callbacks that don't change the run. This one records when training begins and ends.
NOTES = (
    "keras.callbacks.LambdaCallback("
    "on_train_begin=lambda logs: open('notes', 'a').write('begin '), "
    "on_epoch_end=lambda epoch, logs: open('notes', 'a').write(f'{epoch} '), "
    "on_train_end=lambda logs: open('notes', 'a').write('end '))"
)
OTHERS = {
    "CSVLogger": "keras.callbacks.CSVLogger('log.csv', append=True)",
    "LambdaCallback": NOTES,
    "TerminateOnNaN": "keras.callbacks.TerminateOnNaN()",
    "ModelCheckpoint": "keras.callbacks.ModelCheckpoint('best.keras', monitor='val_accuracy', save_best_only=True)",
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.sweep) if name != "Adam" else name for name in OPTIMIZERS],
)
def test_another_optimizer(edited, check, tmp_path, name):
    check(edited(OPTIMIZER, OPTIMIZERS[name]))
    state = read_checkpoint(tmp_path / "killed" / "epoch_2.hdf5")
    assert state.optimizer["class_name"] == name
    history = json.loads((tmp_path / "killed" / f"{SCRIPT[:-3]}.json").read_text())
    rate = {"SGD": 0.1, "AdamW": 2e-3}.get(name, 1e-3)
    assert history["learning_rate"] == [rate] * 2
    assert history["run"]["arguments"]["lr"] == rate


@pytest.mark.parametrize(
    ("metrics", "curves"),
    [pytest.param(TOP3, {"accuracy", "top3"}, marks=pytest.mark.sweep), (RECALL, {"recall", "auc"})],
)
def test_another_metric(edited, check, tmp_path, metrics, curves):
    check(edited(METRICS, metrics))
    history = json.loads((tmp_path / "killed" / f"{SCRIPT[:-3]}.json").read_text())
    measured = {curve for curve, values in history.items() if values} - {"run", "loss", "learning_rate", "seconds"}
    assert measured == curves | {f"val_{curve}" for curve in curves} | {"val_loss"}
    assert all(len(history[curve]) == 2 for curve in measured)


@pytest.mark.parametrize("name", OTHERS)
def test_another_callback(edited, command, killed, straight, tmp_path, name):
    script = edited(CALLBACKS, f"{CALLBACKS}\n        {OTHERS[name]},")
    killed(script, *RUN, "-c", "killed", "-o", "killed")
    command(script, "-c", "killed", "-m", "latest")
    assert_identical(straight() / "epoch_2.hdf5", tmp_path / "killed" / "epoch_2.hdf5")
    assert_same_curves(straight(), tmp_path / "killed")
    if name == "CSVLogger":
        rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
        assert [row["epoch"] for row in rows] == ["0", "1"]
    if name == "LambdaCallback":  # the killed process didn't reach on_train_end
        assert (tmp_path / "notes").read_text() == "begin 0 begin 1 end "


def test_training_begins_and_ends_once_also_where_only_a_validation_is_left(edited, command, monkeypatch, tmp_path):
    script = edited(CALLBACKS, f"{CALLBACKS}\n        {NOTES},")
    batches, original = count(1), AsyncCallbackList.on_test_batch_end

    def stopping(self, *arguments):
        if next(batches) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, *arguments)

    monkeypatch.setattr(AsyncCallbackList, "on_test_batch_end", stopping)
    command(script, *RUN, "-c", "c", code=143)
    monkeypatch.undo()
    command(script, "-c", "c", "-m", "latest")
    assert (tmp_path / "notes").read_text() == "begin end begin 0 1 end "


def test_a_list_without_the_project_s_callbacks_trains_and_resumes(edited, command, straight, tmp_path):
    text = (ROOT / SCRIPT).read_text()
    callbacks = text[text.index(CALLBACKS) : text.index("    result = ")]
    script = edited(callbacks, "    callbacks = []\n")
    command(script, *RUN, "--stop_after", "1", "-c", "c")
    assert [path.name for path in list_checkpoints(tmp_path / "c")] == ["epoch_1.hdf5"]
    command(script, "-c", "c", "-m", "latest")
    assert_identical(straight() / "epoch_2.hdf5", tmp_path / "c" / "epoch_2.hdf5")


def test_a_plot_that_is_not_beside_its_history_stays_the_run_s(edited, command, tmp_path):
    script = edited('Path(args.output, "resnet_cifar10.png")', 'Path(args.output, "plots", "curves.png")')
    command(script, *SMALL, "--epochs", "2", "--stop_after", "1")
    command(script, "-m", "latest")
    assert not list((tmp_path / "output").rglob("earlier-1"))


@pytest.mark.sweep
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        *((OPTIMIZER, of) for of in (*OPTIMIZERS.values(), *FURTHER.values())),
        (METRICS, TOP3),
        (METRICS, RECALL),
        *((CALLBACKS, f"{CALLBACKS}\n        {callback},") for callback in OTHERS.values()),
    ],
)
def test_an_edited_script_that_is_killed_goes_on_exactly(edited, tmp_path, backend, before, after):
    script = edited(before, after)

    def run(folder, *flags, kind="none", number=0, code=0):
        words = [sys.executable, ROOT / "tests" / "faults.py", kind, number, script, *flags, "-c", folder, "-o", folder]
        environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(list(map(str, words)), cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr

    run("straight", *RUN)
    run("killed", *RUN, kind="SIGKILL", number=11, code=-9)
    run("killed", "-m", "latest")
    assert_identical(tmp_path / "straight" / "epoch_2.hdf5", tmp_path / "killed" / "epoch_2.hdf5")
    assert_same_curves(tmp_path / "straight", tmp_path / "killed")
