"""Learning rates: schedules by the epoch, warm-up by the step."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT

from pipeline.nn.optimizer import WarmupSGD, last_learning_rate
from pipeline.utils.schedules import CosineDecay, PolynomialDecay, decay_after_warmup


def test_cosine_equals_keras_own():
    stock = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=150)
    for epoch in range(151):
        assert CosineDecay(0.1, 150)(epoch) == pytest.approx(float(stock(epoch)), abs=1e-8)


@pytest.mark.parametrize("name", ["poly", "cosine"])
def test_a_run_may_be_all_warm_up(name):
    assert [decay_after_warmup(name, 3, 3)(epoch) for epoch in range(3)] == [1.0] * 3


@pytest.mark.parametrize(("name", "decay"), [("poly", PolynomialDecay), ("cosine", CosineDecay)])
def test_a_decay_starts_where_the_warm_up_ends(name, decay):
    share = decay_after_warmup(name, 20, 5)
    assert [share(epoch) for epoch in range(6)] == [1.0] * 6
    assert [share(epoch) for epoch in range(5, 20)] == [decay(1.0, 15)(epoch) for epoch in range(15)]
    plain = decay_after_warmup(name, 20, 0)
    assert [plain(epoch) for epoch in range(20)] == [decay(1.0, 20)(epoch) for epoch in range(20)]


def train(optimizer, steps):
    """A weight whose gradient is always 1: what it loses in a step is the rate."""
    weight = keras.Variable(0.0, name="weight")
    optimizer.build([weight])
    lost = []
    for _ in range(steps):
        before = float(weight.value)
        optimizer.apply([keras.ops.ones(())])
        lost.append(before - float(weight.value))
    return lost


def test_the_rate_rises_linearly_to_the_one_that_is_set_and_stays():
    np.testing.assert_allclose(train(WarmupSGD(0.4, warmup_steps=4), 6), [0.1, 0.2, 0.3, 0.4, 0.4, 0.4], rtol=1e-5)


def test_without_warm_up_it_is_stock_sgd():
    options = {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}
    assert train(WarmupSGD(**options), 5) == train(keras.optimizers.SGD(**options), 5)


def test_the_rate_of_the_last_step_is_told_and_the_one_that_is_set_may_change():
    optimizer = WarmupSGD(0.4, warmup_steps=4)
    assert last_learning_rate(optimizer) == pytest.approx(0.1)  # none yet: that of the first
    for expected in (0.1, 0.2, 0.3, 0.4, 0.4):
        train(optimizer, 1) if not optimizer.built else optimizer.apply([keras.ops.ones(())])
        assert last_learning_rate(optimizer) == pytest.approx(expected)
    optimizer.learning_rate = 0.1
    assert last_learning_rate(optimizer) == 0.1
    assert last_learning_rate(keras.optimizers.SGD(0.1)) == 0.1


def test_its_variables_are_those_of_sgd():
    ours, stock = WarmupSGD(0.1, momentum=0.9, warmup_steps=3, name="sgd"), keras.optimizers.SGD(0.1, 0.9, name="sgd")
    train(ours, 1)
    train(stock, 1)
    assert [v.path for v in ours.variables] == [v.path for v in stock.variables]


def test_on_jax_rates_and_averages_are_the_same():
    files = [ROOT / "tests" / name for name in ("test_optimizer.py", "test_average.py")]
    words = [sys.executable, "-m", "pytest", "-q", "-k", "rises or last_step or recursion or stand_in", *files]
    done = subprocess.run(words, cwd=ROOT, env=os.environ | {"KERAS_BACKEND": "jax"}, capture_output=True, text=True)
    assert "4 passed" in done.stdout, done.stdout + done.stderr
