"""The Python API, and the README's example of it."""

import logging
import os
import re
import signal

import keras
import numpy as np
import pytest
from conftest import ROOT, arrays
from messages import naming

from pipeline.callbacks import AsyncCallbackList
from pipeline.data import ArraySource
from pipeline.errors import InputError
from pipeline.training.runs import Run


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Run two epochs of the README's Python example in a folder, with changes by regular expression."""
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    assert example.startswith("from pipeline")  # it sets variables that the backend and HDF5 read when they load
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (96, 32, 32, 3), dtype=np.uint8)
    y = rng.integers(0, 10, 96)
    given = {"x_train": x[:64], "y_train": y[:64], "x_val": x[64:], "y_val": y[64:]}

    def run(folder, changes=()):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        text = example
        for old, new in {r"epochs=\d+": "epochs=2", r"train_batches\(\d+": "train_batches(16", **dict(changes)}.items():
            text, count = re.subn(old, new, text)
            assert count, old
        variables = dict(given)
        keras.utils.set_random_seed(0)  # the same initial weights in each run
        exec(text, variables)  # noqa: S102
        return variables

    return run


def test_the_example_in_the_readme_stops_inside_an_epoch_and_resumes_exactly(program, monkeypatch, tmp_path):
    straight = program("straight")
    assert straight["run"].history["val_accuracy"][1:]
    original = AsyncCallbackList.on_train_batch_end

    def interrupt(self, batch, logs=None):
        if batch == 2:
            os.kill(os.getpid(), signal.SIGINT)
        original(self, batch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(AsyncCallbackList, "on_train_batch_end", interrupt)
        with pytest.raises(SystemExit) as end:
            program("stopped")
    assert end.value.code == 130
    resumed = program("stopped")
    assert resumed["run"].progress == (0, 3)
    ours, theirs = (
        arrays(tmp_path / folder / straight["run"].folder / "epoch_2.hdf5") for folder in ("straight", "stopped")
    )
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name], err_msg=name)


def test_the_example_goes_on_with_another_learning_rate(program):
    program("run", {r"epochs=\d+": "epochs=1"}.items())
    history = program("run", {r"epochs=\d+": "epochs=2, lr=0.01"}.items())["run"].history
    assert history["learning_rate"][0] > 0.01
    assert history["learning_rate"][1] == 0.01
    assert history["run"]["learning_rate_changes"] == [[1, 0, 0.01]]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (r"train_batches\(\d+", "train_batches(8", ["steps", "4", "8"]),
        ("seed=1", "seed=2", ["seed 1", "2"]),
        ("classes=10", "classes=10, reg=0.01", ["reg 0.0001", "0.01"]),
        (r"x_val, y_val\)\)", "x_val, 9 - y_val))", ["data"]),
    ],
)
def test_a_resume_with_another_batch_size_seed_network_or_data_is_refused(program, old, new, named):
    program("run", {r"epochs=\d+": "epochs=1"}.items())
    with pytest.raises(InputError, match=naming("epoch_1.hdf5" if "data" not in named else "checkpoint", *named)):
        program("run", {old: new}.items())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": 1, "stop_after": 0}, "stop_after is 0"),
        ({"epochs": 1, "keep": -1}, "keep is -1"),
        ({"epochs": 1, "lr": 0.0}, "lr is 0"),
        ({"epochs": 1, "checkpoint_seconds": float("inf")}, "checkpoint_seconds is inf"),
        ({"epochs": 1, "lr": 0.5}, "lr is 0.5.*no checkpoint"),
    ],
)
def test_a_value_that_a_run_can_not_have_is_named(tmp_path, options, named):
    with pytest.raises(InputError, match=named):
        Run.open(tmp_path, **options)


IMAGES, LABELS = np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 2, 1])


def test_arrays_are_a_data_set(caplog):
    source = ArraySource((IMAGES + 2, LABELS), (IMAGES, LABELS))
    assert source.class_names == ("0", "1", "2")
    assert source.image_shape == (8, 8, 3)
    images, labels = source.val_batches(4)[0]
    assert (images == -2).all()
    assert labels.argmax(axis=1).tolist() == LABELS.tolist()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("train", "val", "classes", "named"),
    [
        ((IMAGES[0], LABELS), (IMAGES, LABELS), None, r"train images are uint8 \(8, 8, 3\)"),
        ((IMAGES, LABELS), (IMAGES.astype(float), LABELS), None, "val images are float64"),
        ((IMAGES, LABELS[:3]), (IMAGES, LABELS), None, r"train labels are int64 \(3,\); expected 4"),
        ((IMAGES, LABELS), (IMAGES, LABELS / 2), None, "val labels are float64"),
        ((IMAGES, LABELS), (IMAGES, LABELS), "ab", "train labels are 0 to 2; expected 0 to 1"),
        ((IMAGES, LABELS - 1), (IMAGES, LABELS), None, "train labels are -1 to 1"),
        ((IMAGES, LABELS), (IMAGES[:, :4], LABELS), None, r"\(8, 8, 3\), val images \(4, 8, 3\)"),
    ],
)
def test_arrays_that_do_not_fit_are_named(train, val, classes, named):
    with pytest.raises(InputError, match=named):
        ArraySource(train, val, classes)
