"""The curves as CSV and for TensorBoard."""

import csv
import json
from importlib import util

import numpy as np
import pytest
from conftest import CHECKPOINTS, SMALL, names
from messages import assert_names, assert_refused
from stopping import BY_HAND, RUN

from pipeline.callbacks import CSVLog, TensorBoardLog
from pipeline.callbacks.logs import tensorboardlog
from pipeline.checkpoints.history import CURVES, new_history


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def assert_holds(path, history):
    """Assert that a CSV file holds the curves of the history in a JSON file."""
    history = json.loads(history.read_text())
    found = rows(path)
    assert [row.pop("epoch") for row in found] == [str(epoch) for epoch in range(len(history["loss"]))]
    assert found
    assert all(row.keys() == history.keys() - {"run"} for row in found)
    for name in found[0]:
        assert [float(row[name]) for row in found] == history[name], name


def events(folder):
    """Return the scalars in TensorBoard's files in a folder: {name: [(step, value), ...]}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return {
        name: [(event.step, make_ndarray(event.tensor_proto).item()) for event in accumulator.Tensors(name)]
        for name in accumulator.Tags()["tensors"]
    }


def test_a_resumed_run_goes_on_in_its_csv_file_after_the_checkpoint_s_epoch(command, tmp_path):
    log, history = tmp_path / "logs.csv", tmp_path / "output" / "resnet_cifar10.json"
    done = command(BY_HAND, *RUN, "--epochs", "3", "--csv", "logs.csv")
    assert "written: logs.csv" in done.stdout
    assert_holds(log, history)
    before = rows(log)
    command(BY_HAND, "--model", tmp_path / CHECKPOINTS / "epoch_1.hdf5", "--lr", "0.01", "--epochs", "2")
    assert_holds(log, history)
    after = rows(log)
    assert after[0] == before[0]
    assert len(after) == 2
    assert after[1]["learning_rate"] == "0.01"
    # At a new place, the file has all epochs, too.
    command(BY_HAND, "--model", "latest", "--epochs", "3", "--csv", "new.csv")
    assert_holds(tmp_path / "new.csv", history)
    assert rows(log) == after
    # A fresh run moves it aside.
    command(BY_HAND, *SMALL, "--epochs", "1", "--csv", "new.csv", "-c", "c", "-o", "o")
    assert len(rows(tmp_path / "earlier-1" / "new.csv")) == 3
    assert_holds(tmp_path / "new.csv", tmp_path / "o" / "resnet_cifar10.json")


def history_of(epochs):
    return new_history() | {name: [float(epoch) for epoch in range(epochs)] for name in CURVES}


@pytest.mark.parametrize(
    ("content", "is_foreign"),
    [
        (None, False),
        ("", False),
        ("epoch,accuracy,learning_rate,loss,val_accuracy,val_loss\r\n", False),
        ("epoch,accuracy,learning_rate,loss,val_accuracy,val_loss\r\n0,0.0,0.0,0.0,0.0,0.0\r\n", False),
        ("epoch,accuracy,learning_rate,loss,val_accuracy,val_loss\r\n0,0.0,0.5,0.0,0.0,0.0\r\n", True),
        ("# A text of mine\n", True),
    ],
)
def test_a_csv_file_of_another_run_is_known_by_its_content(tmp_path, content, is_foreign):
    log = CSVLog(tmp_path / "log.csv")
    log.history = history_of(2)
    if content is not None:
        log.path.write_text(content)
    assert log.is_foreign() == is_foreign


def test_a_full_disk_costs_no_row(tmp_path, monkeypatch, caplog):
    log = CSVLog(tmp_path / "log.csv")
    log.history = history_of(0)
    log.on_train_begin()
    logs = dict.fromkeys(CURVES, 0.0)
    log.on_epoch_end(0, logs)
    log.history = history_of(1)

    def full():
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("keras.callbacks.CSVLogger.on_epoch_end", lambda self, epoch, logs: full())
        log.on_epoch_end(1, logs)
    assert log.failures == 1
    assert_names(caplog.text, "log.csv", "No space left on device", "tries again")
    log.history = history_of(2)
    log.on_epoch_end(2, logs)
    log.on_train_end()
    assert [row["epoch"] for row in rows(log.path)] == ["0", "1", "2"]
    assert log.failures == 1


def test_tensorboard_gets_the_curves_of_each_process_in_a_folder_of_its_own(command, tmp_path):
    warm = ("--warmup_epochs", "2")
    command(BY_HAND, *RUN, *warm, "--epochs", "3", "--stop_after", "2", "--tensorboard", "board")
    history = json.loads((tmp_path / "output" / "resnet_cifar10.json").read_text())
    (run,) = (tmp_path / "board").iterdir()
    assert run.name == f"resnet_cifar10-{history['run']['sittings'][0]['id']}"
    train, val = events(run / "sitting-1" / "train"), events(run / "sitting-1" / "validation")
    for name in ("loss", "accuracy", "learning_rate", "seconds"):
        assert train[f"epoch_{name}"] == [(step, np.float32(value)) for step, value in enumerate(history[name])], name
    for name in ("loss", "accuracy"):
        assert val[f"epoch_{name}"] == [(step, np.float32(value)) for step, value in enumerate(history[f"val_{name}"])]
    assert len(train) == 4
    assert len(val) == 2
    command(BY_HAND, "-m", "latest")
    assert [step for step, _ in events(run / "sitting-2" / "train")["epoch_loss"]] == [2]
    # From an earlier checkpoint, the second process is superseded.
    done = command(BY_HAND, "-m", tmp_path / CHECKPOINTS / "epoch_1.hdf5", "--stop_after", "2")
    assert names(run) == ["earlier-1", "sitting-1", "sitting-2"]
    assert_names(done.stdout, "earlier-1: .*sitting-2")
    assert [step for step, _ in events(run / "earlier-1" / "sitting-2" / "train")["epoch_loss"]] == [2]
    assert [step for step, _ in events(run / "sitting-2" / "train")["epoch_loss"]] == [1]


def test_without_its_packages_tensorboard_is_refused(command, monkeypatch, tmp_path):
    monkeypatch.setattr(
        tensorboardlog, "find_spec", lambda name: None if name == "tensorboard" else util.find_spec(name)
    )
    done = command(BY_HAND, *RUN, "--tensorboard", "board", code=2)
    assert_refused(done, "--tensorboard board", "requirements-tensorboard.txt")
    assert names(tmp_path) == []


def test_a_failing_disk_does_not_stop_tensorboard_s_run(tmp_path, caplog):
    (tmp_path / "board").mkdir()
    log = TensorBoardLog(tmp_path / "board")
    log.bind("train", "x", 1)
    (tmp_path / "board" / "train-x").touch()  # in place of the folder
    log.set_model(None)
    log.on_epoch_end(0, {"loss": 1.0, "learning_rate": 0.1})
    log.on_train_end()
    assert log.failures >= 1
    assert "train-x" in caplog.text


@pytest.mark.parametrize("place", [".", "output/resnet_cifar10.json", "/dev/null"])
def test_a_csv_file_that_can_not_be_one_is_refused(command, place):
    assert_refused(command(BY_HAND, *RUN, "--csv", place, code=2), f"--csv {place}")


def test_jax_logs_the_same(process, tmp_path):
    process(BY_HAND, *RUN, "--epochs", "1", "--csv", "log.csv", "--tensorboard", "board", backend="jax")
    assert_holds(tmp_path / "log.csv", tmp_path / "output" / "resnet_cifar10.json")
    (folder,) = (tmp_path / "board").glob("*/sitting-1/train")
    history = json.loads((tmp_path / "output" / "resnet_cifar10.json").read_text())
    assert events(folder)["epoch_loss"] == [(0, np.float32(history["loss"][0]))]
