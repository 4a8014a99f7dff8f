"""The project's callbacks in a plain Keras `fit`."""

import json
import os
import subprocess
import sys

import cv2
import h5py
import keras
import numpy as np
import pytest
from conftest import ROOT
from messages import assert_names, naming

from pipeline.callbacks import AsyncCallbackList, EpochCheckpoint, TrainingMonitor
from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.history import new_history
from pipeline.checkpoints.listing import list_checkpoints
from pipeline.plots.history import draw_history


@pytest.fixture
def fit():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy", metrics=["accuracy"])
    inputs, targets = np.random.default_rng(0).random((12, 2)), np.eye(3)[np.arange(12) % 3]

    def run(*callbacks, epochs=3, inputs=inputs):
        return model.fit(inputs, targets, validation_split=0.25, epochs=epochs, verbose=0, callbacks=list(callbacks))

    return run


def test_checkpoints_come_every_few_epochs_and_after_the_last(fit, tmp_path):
    fit(EpochCheckpoint(tmp_path / "new" / "folder", every=3), epochs=7)
    assert [path.name for path in list_checkpoints(tmp_path / "new" / "folder")] == [
        "epoch_3.hdf5", "epoch_6.hdf5", "epoch_7.hdf5",
    ]  # fmt: skip
    # Not a network of this project: stock Keras opens it, and the project refuses it with a reason.
    path = tmp_path / "new" / "folder" / "epoch_6.hdf5"
    assert keras.models.load_model(path, compile=False).output_shape == (None, 3)
    with h5py.File(path) as file:
        assert len(json.loads(file["run/state"][()].tobytes())["history"]["loss"]) == 6
    with pytest.raises(ValueError, match=naming("epoch_6.hdf5", "ResNet.build")):
        read_checkpoint(path)


def test_every_must_be_a_count(tmp_path):
    with pytest.raises(ValueError, match=naming("every", r"\b0\b")):
        EpochCheckpoint(tmp_path, every=0)


def test_monitor_writes_the_history_that_keras_returns_and_a_plot(fit, tmp_path):
    returned = fit(TrainingMonitor(tmp_path / "plots" / "a.png", tmp_path / "a.json")).history
    written = json.loads((tmp_path / "a.json").read_text())
    for curve in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert written[curve] == returned[curve]
    assert written["learning_rate"] == [0.1] * 3
    assert cv2.imread(str(tmp_path / "plots" / "a.png")).std() > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "plots"]


def test_monitor_goes_on_from_a_history(fit, tmp_path):
    history = new_history() | {name: [1.0] for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
    history["learning_rate"] = [0.2]
    fit(TrainingMonitor(tmp_path / "a.png", history=history), epochs=2)
    assert history["learning_rate"] == [0.2, 0.1, 0.1]
    assert history["loss"][0] == 1.0


def test_a_diverged_run_stops_with_advice(fit, tmp_path):
    with pytest.raises(ValueError, match=naming(r"\bloss\b", r"\bnan\b", r"epoch 1\b", "`lr`")):
        fit(TrainingMonitor(tmp_path / "a.png"), inputs=np.full((12, 2), np.nan))


def test_curves_start_at_epoch_1_on_axes_of_their_own_with_changes_by_hand_marked():
    curves = {"loss": [2.0, 1.0], "accuracy": [0.1, 0.2], "val_loss": [3.0, 2.0], "val_accuracy": [0.3, 0.4]}
    run = {"learning_rate_changes": [[1, 0, 0.01]]}
    loss, accuracy = draw_history(curves | {"learning_rate": [0.1, 0.01], "run": run}).axes
    assert [list(line.get_xdata()) for line in loss.lines[:2]] == [[1, 2], [1, 2]]
    assert [list(line.get_ydata()) for line in accuracy.lines[:2]] == [[0.1, 0.2], [0.3, 0.4]]
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss", "accuracy")
    assert [list(panel.lines[2].get_xdata()) for panel in (loss, accuracy)] == [[1.5, 1.5]] * 2
    assert_names(loss.texts[0].get_text(), r"\b0\.01$")


def test_the_curves_of_averaged_weights_are_drawn_beside():
    names = ("loss", "accuracy", "val_loss", "val_accuracy", "ema_val_loss", "ema_val_accuracy", "learning_rate")
    curves = {name: [number, number + 0.5] for number, name in enumerate(names)}
    loss, accuracy = draw_history(curves | {"run": {"arguments": {"ema": 0.9}}}).axes
    assert [list(line.get_ydata()) for line in loss.lines] == [[0, 0.5], [2, 2.5], [4, 4.5]]
    assert [list(line.get_ydata()) for line in accuracy.lines] == [[1, 1.5], [3, 3.5], [5, 5.5]]
    assert_names(loss.get_legend().get_texts()[-1].get_text(), "averaged")


class Watcher(keras.callbacks.Callback):
    """Record the logs, as a callback of the project."""

    __module__ = "pipeline.callbacks.watcher"

    def on_train_begin(self, logs=None):
        self.batches, self.epochs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(logs["loss"])
        self.held = keras.Sequential([keras.layers.Dense(1)]).layers  # tracked by its model

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(logs["loss"])


def trained(callbacks_of):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy", metrics=["accuracy"])
    inputs, targets = np.random.default_rng(0).random((12, 2)), np.eye(3)[np.arange(12) % 3]
    fitted = model.fit(inputs, targets, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=callbacks_of(model))
    return model.get_weights(), fitted.history


def test_a_callback_gets_a_batch_without_waiting_for_its_loss():
    watcher = Watcher()
    weights, history = trained(lambda model: AsyncCallbackList([watcher], add_history=True, model=model))
    assert not any(isinstance(loss, (float, np.ndarray)) for loss in watcher.batches)
    assert len(watcher.batches) == 6
    assert watcher.epochs == history["loss"] == [pytest.approx(float(watcher.batches[last])) for last in (2, 5)]
    assert len(watcher.held) == 1
    usual_weights, usual_history = trained(lambda model: [])
    assert history == usual_history
    for ours, usual in zip(weights, usual_weights, strict=True):
        np.testing.assert_array_equal(ours, usual)


JAX_STATE_IS_NOT_TRACKED = """
import keras, numpy as np
from keras.src.utils import tracking
from pipeline.callbacks import AsyncCallbackList

model = keras.Sequential([keras.Input((2,)), *(keras.layers.Dense(2) for _ in range(20))])
model.compile(keras.optimizers.SGD(0.1), "mse")
seen = []
filed = tracking.TrackedList.__init__
tracking.TrackedList.__init__ = lambda self, *args, **kw: (seen.append(len(args[0])), filed(self, *args, **kw))[1]
with AsyncCallbackList(add_history=True, model=model) as callbacks:
    model.fit(np.zeros((50, 2)), np.zeros((50, 2)), batch_size=1, verbose=0, callbacks=callbacks)
print(sum(count == 40 for count in seen))
try:
    with callbacks:
        callbacks.on_train_batch_begin(0)
        print(tracking.is_tracking_enabled())
        raise RuntimeError("a batch that fails")
except RuntimeError:
    print(tracking.is_tracking_enabled())
"""


def test_on_jax_the_state_is_not_filed_away_and_a_batch_that_fails_leaves_keras_as_it_was(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", JAX_STATE_IS_NOT_TRACKED],
        env=os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    filed, within, afterwards = done.stdout.split()
    assert int(filed) < 5
    assert (within, afterwards) == ("False", "True")
