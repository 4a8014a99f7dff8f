"""The curves as CSV and for TensorBoard."""

import csv
import json
from importlib import util

import keras
import numpy as np
import pytest
from conftest import CHECKPOINTS, SMALL, names
from messages import assert_names, assert_refused
from stopping import BY_HAND, DECAY, RUN

from pipeline.callbacks import CSVLog, TensorBoardLog
from pipeline.callbacks.logs import tensorboardlog
from pipeline.checkpoints.history import CURVES, new_history
from pipeline.files.atomic import WriteError


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
    assert len(rows(tmp_path / "earlier-1" / "logs.csv")) == 3
    # At a new place, the file has all epochs, too.
    command(BY_HAND, "--model", "latest", "--epochs", "3", "--csv", "new.csv")
    assert_holds(tmp_path / "new.csv", history)
    assert rows(log) == after
    # A fresh run moves it aside.
    command(BY_HAND, *SMALL, "--epochs", "1", "--csv", "new.csv", "-c", "c", "-o", "o")
    assert len(rows(tmp_path / "earlier-2" / "new.csv")) == 3
    assert_holds(tmp_path / "new.csv", tmp_path / "o" / "resnet_cifar10.json")


def history_of(epochs):
    return new_history() | {name: [float(epoch) for epoch in range(epochs)] for name in CURVES}


HEADER = "epoch,accuracy,learning_rate,loss,val_accuracy,val_loss\r\n"


@pytest.mark.parametrize(
    ("content", "is_foreign"),
    [
        (None, False),
        ("", False),
        (HEADER, False),
        (HEADER + "0,0.0,0.0,0.0,0.0,0.0\r\n", False),
        (HEADER + "0,0.0,0.0,0.0,0.0,0.0\r\n1,1.0,1.0,1.0,1.0,1.0\r\n2,2.0,2.0,2.0,2.0,2.0\r\n", True),
        (HEADER + "0,0.0,0.5,0.0,0.0,0.0\r\n", True),
        ("# A text of mine\n", True),
    ],
)
def test_a_csv_file_of_another_run_or_of_later_epochs_is_known_by_its_content(tmp_path, content, is_foreign):
    log = CSVLog(tmp_path / "log.csv")
    log.history = history_of(2)
    if content is not None:
        log.path.write_bytes(content.encode())
    assert log.is_foreign() == is_foreign


def test_the_csv_file_is_that_of_keras(tmp_path):
    log, stock = CSVLog(tmp_path / "ours.csv"), keras.callbacks.CSVLogger(tmp_path / "stock.csv")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    images, labels = np.random.default_rng(0).normal(size=(2, 8, 2)), np.zeros((8, 1))
    rate = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (1 + epoch))
    fit = {"validation_data": (images[1], labels), "callbacks": [rate, stock, log], "epochs": 3, "verbose": 0}
    model.fit(images[0], labels, **fit)
    ours, theirs = rows(log.path), rows(stock.filename)
    assert [{name: row[name] for name in ("epoch", "loss", "val_loss")} for row in ours] == [
        {name: row[name] for name in ("epoch", "loss", "val_loss")} for row in theirs
    ]
    assert [float(row["learning_rate"]) for row in ours] == pytest.approx([0.1, 0.05, 0.1 / 3])


def test_a_curve_that_begins_later_or_has_gaps_shifts_no_column(tmp_path):
    log = CSVLog(tmp_path / "log.csv")
    log.history = history_of(3) | {"seconds": [None, 1.5, None]}
    log.write()
    assert [row["seconds"] for row in rows(log.path)] == ["NA", "1.5", "NA"]
    assert [row["val_loss"] for row in rows(log.path)] == ["0.0", "1.0", "2.0"]


@pytest.mark.parametrize("epochs", [pytest.param((2,), marks=pytest.mark.sweep), (3,)])
def test_a_full_disk_costs_no_row_and_no_model(command, monkeypatch, tmp_path, epochs):
    from pipeline.callbacks.logs import csvlog

    tried, original = [], csvlog.write_atomically

    def full(path, content):
        tried.append(path)
        if len(tried) in epochs:
            raise WriteError(path, len(content), OSError(28, "No space left on device"))
        original(path, content)

    monkeypatch.setattr(csvlog, "write_atomically", full)
    done = command(DECAY, *RUN, "--epochs", "3", "--csv", "log.csv", "-m", "m.hdf5", code=1)
    assert_names(done.stderr, "log.csv", "No space left on device", "tries again")
    assert_holds(tmp_path / "log.csv", tmp_path / "output" / "resnet_cifar10_decay.json")
    assert (tmp_path / "m.hdf5").exists()


@pytest.mark.sweep
def test_a_run_stopped_in_its_first_epoch_moves_nothing_aside(command, stop_at, monkeypatch, tmp_path):
    stop_at("train", 2)
    command(BY_HAND, *RUN, "--csv", "log.csv", code=130)
    monkeypatch.undo()
    command(BY_HAND, "-m", "latest", "--stop_after", "1")
    assert names(tmp_path) == [".log.csv.lock", "log.csv", "output"]
    # A finished run writes the file at a new place.
    done = command(BY_HAND, "-m", "latest", "--stop_after", "1", "--csv", "new.csv")
    assert "written: new.csv" in done.stdout
    assert (tmp_path / "new.csv").read_bytes() == (tmp_path / "log.csv").read_bytes()


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


def test_a_csv_file_that_can_not_be_one_is_refused(command, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").touch()
    for place in ("log.txt", "folder.csv", "file/log.csv", "output/resnet_cifar10_classes.csv"):
        assert_refused(command(BY_HAND, *RUN, "--csv", place, code=2), f"{place}|file")


@pytest.mark.sweep
def test_jax_logs_the_same(process, tmp_path):
    process(BY_HAND, *RUN, "--epochs", "1", "--csv", "log.csv", "--tensorboard", "board", backend="jax")
    assert_holds(tmp_path / "log.csv", tmp_path / "output" / "resnet_cifar10.json")
    (folder,) = (tmp_path / "board").glob("*/sitting-1/train")
    history = json.loads((tmp_path / "output" / "resnet_cifar10.json").read_text())
    assert events(folder)["epoch_loss"] == [(0, np.float32(history["loss"][0]))]
