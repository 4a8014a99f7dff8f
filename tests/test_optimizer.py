"""Learning rates: schedules per epoch, warm-up per step."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT, SMALL

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.nn.optimizer import WarmupSGD, last_learning_rate
from pipeline.utils.schedules import cosine, decay_after_warmup, poly


def test_cosine_equals_keras_own():
    stock = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=150)
    for epoch in range(151):
        assert 0.1 * cosine(epoch, 150) == pytest.approx(float(stock(epoch)), abs=1e-8)


def test_a_constant_rate_stays():
    assert decay_after_warmup("constant", 3, 1) is None


@pytest.mark.parametrize("name", ["poly", "cosine"])
def test_a_run_may_be_all_warm_up(name):
    assert [decay_after_warmup(name, 3, 3)(epoch) for epoch in range(3)] == [1.0] * 3


@pytest.mark.parametrize(("name", "decay"), [("poly", poly), ("cosine", cosine)])
def test_a_decay_starts_where_the_warm_up_ends(name, decay):
    share = decay_after_warmup(name, 20, 5)
    assert [share(epoch) for epoch in range(6)] == [1.0] * 6
    assert [share(epoch) for epoch in range(5, 20)] == [decay(epoch, 15) for epoch in range(15)]
    plain = decay_after_warmup(name, 20, 0)
    assert [plain(epoch) for epoch in range(20)] == [decay(epoch, 20) for epoch in range(20)]


def model_of(optimizer):
    """Create a single weight whose gradient is always 1."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizer, loss=lambda labels, outputs: outputs)
    return model


def decreases(model, steps):
    """Return the decrease of the weight in each of `steps` compiled steps: without momentum, the rate."""
    lost, ones = [], np.ones((1, 1), np.float32)
    for _ in range(steps):
        (before,) = model.get_weights()
        model.train_on_batch(ones, ones)
        (after,) = model.get_weights()
        lost.append((before - after).item())
    return lost


def test_the_rate_rises_linearly_to_the_one_that_is_set_and_stays():
    lost = decreases(model_of(WarmupSGD(0.4, warmup_steps=4)), 6)
    np.testing.assert_allclose(lost, [0.1, 0.2, 0.3, 0.4, 0.4, 0.4], rtol=1e-5)


def test_without_warm_up_it_is_stock_sgd():
    options = {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}
    ours, stock = (decreases(model_of(of(**options)), 5) for of in (WarmupSGD, keras.optimizers.SGD))
    assert ours == stock


def test_the_rate_of_the_last_step_is_reported_and_the_set_rate_may_change():
    optimizer = WarmupSGD(0.4, warmup_steps=4)
    model = model_of(optimizer)
    assert last_learning_rate(optimizer) == 0.1  # before the first step: its rate
    for expected in (0.1, 0.2, 0.3, 0.4, 0.4):
        decreases(model, 1)
        assert last_learning_rate(optimizer) == expected
    optimizer.learning_rate = 0.1
    assert last_learning_rate(optimizer) == 0.1
    assert last_learning_rate(keras.optimizers.SGD(0.1)) == 0.1


def test_its_variables_are_those_of_sgd_and_a_copy_warms_up_too():
    ours, stock = WarmupSGD(0.1, momentum=0.9, warmup_steps=3, name="sgd"), keras.optimizers.SGD(0.1, 0.9, name="sgd")
    for optimizer in (ours, stock):
        optimizer.build([keras.Variable(0.0, name="weight")])
    assert [v.path for v in ours.variables] == [v.path for v in stock.variables]
    assert WarmupSGD.from_config(ours.get_config()).get_config() == ours.get_config()


def test_a_recipe_s_values_reach_the_optimizer(command, tmp_path):
    flags = ("--lr", "0.3", "--momentum", "0.8", "--nesterov", "--warmup_epochs", "1", "--epochs", "1")
    command("resnet_cifar10.py", *SMALL, *flags, "-c", "c")
    checkpoint = read_checkpoint(tmp_path / "c" / "epoch_1.hdf5")
    expected = {"momentum": 0.8, "nesterov": True, "warmup_steps": 4, "weight_decay": None}
    assert expected.items() <= checkpoint.optimizer["config"].items()
    names = [entry["name"] for entry in checkpoint.optimizer["arrays"]]
    assert checkpoint.arrays[f"run/optimizer/{names.index('learning_rate')}"] == np.float32(0.3)


@pytest.mark.sweep
def test_on_jax_rates_and_averages_are_the_same():
    files = [ROOT / "tests" / name for name in ("test_optimizer.py", "test_average.py")]
    words = [sys.executable, "-m", "pytest", "-q", "-k", "rises or last_step or recursion or stand_in", *files]
    done = subprocess.run(words, cwd=ROOT, env=os.environ | {"KERAS_BACKEND": "jax"}, capture_output=True, text=True)
    assert "4 passed" in done.stdout, done.stdout + done.stderr
