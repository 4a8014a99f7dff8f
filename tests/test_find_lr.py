"""The learning rate range test: its arithmetic, its steps, and the command."""

import json
import math
import os
import re
import shlex
import signal
from types import SimpleNamespace

import keras
import matplotlib
import numpy as np
import pytest
from conftest import ROOT, names
from messages import MISSING, assert_names, assert_refused

from pipeline import find_lr
from pipeline.cli import arguments, flags
from pipeline.cli.datasets import DATASETS, config_of
from pipeline.data import CIFAR10
from pipeline.errors import InputError
from pipeline.io import Batches
from pipeline.nn.conv import ResNet
from pipeline.preprocessing import AffineAugmentation, Mixing
from pipeline.training import rangetest
from pipeline.training.rangeplot import draw_range_test
from pipeline.training.rangetest import RangeTest, range_test

FIND_LR = "pipeline/find_lr.py"
# A network and a data set that train in seconds, with 21 steps per epoch.
SMALL = ("--data", "digits", "--limit", "700", "--batch_size", "32", "--stages", "1", "--filters", "4,8")
RATES = np.geomspace(1e-5, 10, 121).tolist()  # 20 a decade


def curve(losses):
    """Return a test whose losses need no smoothing."""
    losses = list(map(float, losses))
    return RangeTest(RATES[: len(losses)], losses, losses)


def numbers(folder):
    return json.loads((folder / "cifar10.json").read_text())


@pytest.mark.parametrize("steps", [20, 100, 1000])
def test_the_smoothed_loss_is_an_exponential_moving_average_without_bias(steps):
    losses, beta, average = np.random.default_rng(0).random(60).tolist(), 1 - 1 / max(2, steps / 20), 0.0
    for number, loss in enumerate(losses, 1):
        average = beta * average + (1 - beta) * loss
        smoothed = rangetest.smooth(losses[:number], steps)
        assert smoothed == pytest.approx(average / (1 - beta**number))


def falling(steps):
    """Return losses that fall from 3 to 1, most at the 50th step, at a rate of 10 ** -2.5."""
    return 3 - 2 / (1 + np.exp(-4 * (np.log10(RATES[:steps]) + 2.5)))


def test_the_steepest_slope_of_a_smooth_fall_is_in_its_middle():
    assert curve(falling(101)).steepest == pytest.approx(10**-2.5)


@pytest.mark.parametrize("seed", range(5))
def test_neither_noise_nor_a_peak_after_the_minimum_hides_the_steepest_slope(seed):
    noisy = falling(90) + 0.1 * np.random.default_rng(seed).standard_normal(90)
    peak = np.linspace(8, 2, 31)
    assert curve([*noisy, *peak]).steepest == pytest.approx(10**-2.5, rel=0.5)


def test_the_valley_is_found_in_its_middle():
    losses = [3.0] * 40 + [3 - 0.05 * step for step in range(1, 41)] + [1 + 0.1 * step for step in range(41)]
    # It ends with the 80th step, after 41 falling values.
    assert curve(losses).valley == RATES[79 - 41 + 13 + 6]
    # The first tenth and the last five steps are left out.
    assert curve(range(120, 60, -1)).valley == RATES[54 - 49 + 16 + 8]


@pytest.mark.parametrize("seed", range(6))
def test_the_middle_of_a_valley_is_fastai_s(seed):
    rng = np.random.default_rng(seed)
    losses = np.cumsum(rng.integers(-3, 3, 80)) if seed % 2 else rng.integers(0, 40, 80)
    # The longest falling chain that ends at each value, by trying all that could come before it.
    longest = []
    for end, loss in enumerate(losses):
        longest.append(1 + max((longest[before] for before in range(end) if losses[before] > loss), default=0))
    last = longest.index(max(longest))
    first = last - max(longest)
    third = (last - first) / 3
    assert rangetest.middle_of_valley(losses) == first + int(third) + int(third / 2)


@pytest.mark.parametrize("losses", [[2.0] * 60, np.linspace(1, 2, 60), [2.0, 9.0], [2.0]])
def test_where_no_loss_falls_nothing_is_suggested(losses):
    assert (curve(losses).valley, curve(losses).steepest, curve(losses).suggested) == (None, None, None)


@pytest.mark.parametrize(
    ("smoothed", "has_diverged"),
    [([1.0, 4.0], False), ([2.0, 1.0, 4.1], True), ([1.0, math.nan], True), ([math.inf], True), ([9.0, 1.0], False)],
)
def test_a_loss_diverges_at_four_times_its_minimum_or_if_it_is_not_finite(smoothed, has_diverged):
    assert curve(smoothed).diverged == has_diverged


@pytest.fixture
def linear():
    """Return batches of digits, and a linear network for them, whose loss nothing bounds."""
    batches = CIFAR10("digits").train_batches(32)
    model = keras.Sequential([keras.Input(batches.image_shape), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.compile("sgd", "mse", metrics=["accuracy"])
    yield model, batches
    batches.close()


def test_a_test_ends_when_the_loss_diverges(linear):
    model, batches = linear
    counts = []
    test = range_test(model, batches, 40, start=1e-8, advance=counts.append)
    assert test.diverged
    assert 5 < len(test.rates) < 40
    assert len(test.rates) == len(test.losses) == len(test.smoothed) == len(counts) == int(model.optimizer.iterations)
    assert not any(map(rangetest.has_diverged, (test.smoothed[:number] for number in range(1, len(test.rates)))))


def test_a_loss_that_is_never_finite_is_an_error(linear):
    model, batches = linear
    model.set_weights([weights * math.nan for weights in model.get_weights()])
    with pytest.raises(InputError, match=r"\bnan\b"):
        range_test(model, batches, 20)


def test_every_step_is_that_of_a_run_at_the_rate_of_the_curve(command, tmp_path):
    words = ("--recipe", "modern", "--label_smoothing", "0.2", "--reg", "0.01", "--momentum", "0.8", "--seed", "3")
    command(FIND_LR, *SMALL, *words, "-o", tmp_path)
    found = numbers(tmp_path)
    np.testing.assert_array_equal(np.float32(found["rates"]), np.geomspace(1e-5, 10, 21, dtype=np.float32))

    import tensorflow as tf

    augmentation = AffineAugmentation(pad_crop=4)  # the flip is off, as always for digits
    mixing = Mixing(label_smoothing=0.2)
    batches = CIFAR10("digits", 700).train_batches(32, augmentation, mixing, seed=3)
    keras.utils.set_random_seed(3)
    model = ResNet.build(32, 32, 3, classes=10, stages=(1,), filters=(4, 8), reg=0.01)
    optimizer = keras.optimizers.SGD(momentum=0.8, nesterov=True)
    losses = []
    for index, rate in enumerate(found["rates"]):
        images, labels = batches[index]
        with tf.GradientTape() as tape:
            scores = model(images, training=True)
            loss = tf.reduce_mean(keras.losses.categorical_crossentropy(labels, scores)) + sum(model.losses)
        losses.append(float(loss))
        optimizer.learning_rate = rate
        optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)
    batches.close()
    # The last are chaotic.
    np.testing.assert_allclose(found["losses"][:18], losses[:18], rtol=1e-3)


def test_the_same_command_writes_the_same_two_files_and_moves_the_earlier_ones(command, tmp_path):
    first, second = (command(FIND_LR, *SMALL) for _ in range(2))
    assert names(tmp_path) == ["output"]
    assert names(tmp_path / "output") == ["find_lr"]
    folder = tmp_path / "output" / "find_lr"
    assert names(folder) == ["cifar10.json", "cifar10.png", "earlier-1"]
    assert_names(second.stdout, "output/find_lr/earlier-1")
    assert first.stderr == second.stderr == ""
    for name in names(folder / "earlier-1"):
        assert (folder / name).read_bytes() == (folder / "earlier-1" / name).read_bytes()
    found = numbers(folder)
    assert len(found["rates"]) == len(found["losses"]) == len(found["smoothed"]) == 21
    assert found["arguments"].items() >= {"seed": 42, "stages": [1], "data": "digits", "recipe": "published"}.items()
    assert found["arguments"].keys().isdisjoint({"epochs", "lr", "schedule", "output", "ema"})
    for name in ("valley", "lowest"):
        assert re.search(rf"^{name}.* {found[name]:.2g}$", first.stdout, re.MULTILINE)


def test_the_printed_command_trains(command, tmp_path):
    done = command(FIND_LR, *SMALL, "--steps", "20", "--no-nesterov")
    rate = f"{numbers(tmp_path / 'output' / 'find_lr')['suggested']:.2g}"
    lines = [line.partition(": ")[2] for line in done.stdout.splitlines()[-2:]]
    for line, script in zip(lines, ("resnet_cifar10.py", "resnet_cifar10_decay.py"), strict=True):
        _, path, *words = shlex.split(line)
        assert (tmp_path / path).resolve() == ROOT / script
        assert words == ["--lr", rate, *SMALL, "--no_nesterov"]
    command("resnet_cifar10.py", *words, "--epochs", "1")
    run = json.loads((tmp_path / "output" / "resnet_cifar10.json").read_text())["run"]
    assert run["arguments"]["lr"] == float(rate)


@pytest.mark.parametrize("dataset", DATASETS)
def test_both_training_scripts_take_every_flag_with_the_same_meaning(monkeypatch, dataset):
    config = config_of(dataset)
    rows = find_lr.rows(config)
    assert {"data", "batch_size", "stages", "precision", "seed", "workers", "recipe", "nesterov", "flip", "mixup"} <= {
        row.name for row in rows
    }
    values = {row.name: config.BY_HAND.get(row.name, row.default) for row in rows} | {"data": "x", "recipe": "modern"}
    given = (flags.as_flag(name, value) for name, value in values.items() if value is not None)
    for words in (" ".join(given).split(), []):
        argv = ["find_lr.py", "--dataset", dataset, *words, "-o", "there"]
        monkeypatch.setattr("sys.argv", argv)
        parsed, passed = find_lr.parse_arguments()
        args = vars(arguments.resolve(parsed, config.BY_HAND, config.RECIPES))
        printed = find_lr.commands(0.1234, parsed, passed, config)
        for line, defaults in zip(printed, (config.BY_HAND, config.DECAY), strict=True):
            _, path, *words = shlex.split(line.partition(": ")[2])
            assert (ROOT / os.path.relpath(path, os.path.relpath(ROOT))).exists()
            taken = arguments.training_parser("", defaults, config).parse_args(words)
            taken = vars(arguments.resolve(taken, defaults, config.RECIPES))
            assert taken["lr"] == 0.12
            assert {row.name: taken[row.name] for row in rows} == {row.name: args[row.name] for row in rows}


@pytest.fixture
def find(command, monkeypatch, tmp_path):
    """Run the command with a curve in place of the training."""

    def run(losses, **options):
        monkeypatch.setattr(rangetest, "range_test", lambda *arguments, **options: curve(losses))
        return command(FIND_LR, *SMALL, "-o", tmp_path, **options)

    return run


def test_the_command_has_the_larger_suggestion(find):
    done = find([*falling(101), *range(4, 9)])
    test = curve([*falling(101), *range(4, 9)])
    larger = max(test.valley, test.steepest)
    assert min(test.valley, test.steepest) < larger
    assert_names(done.stdout, f"train with: .* --lr {larger:.2g} ")


@pytest.mark.parametrize("last", [math.inf, math.nan])
def test_a_loss_that_diverges_is_told(find, tmp_path, last):
    losses = [*falling(101), 3.0, last]
    done = find(losses)
    assert_names(done.stdout, f"diverged.* {RATES[102]:.2g}\n", f"train with: .* --lr {curve(losses).suggested:.2g} ")
    found = numbers(tmp_path)
    assert found["diverged"]
    assert found["losses"][-2:] == found["smoothed"][-2:] == [3.0, None]
    assert found["lowest"] == RATES[100]


def test_where_the_loss_does_not_fall_no_command_is_printed(find, tmp_path):
    done = find(np.linspace(1, 2, 60))
    assert "--lr" not in done.stdout
    assert numbers(tmp_path)["valley"] is numbers(tmp_path)["steepest"] is None


def test_a_plot_that_can_not_be_drawn_costs_no_numbers(find, monkeypatch, tmp_path):
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *args, **options: [][0])
    assert_refused(find(falling(101), code=1), "cifar10.png")
    assert names(tmp_path) == ["cifar10.json"]


@pytest.mark.parametrize("last", [50.0, 1e20, math.inf, math.nan])
def test_the_plot_shows_the_valley_whatever_follows(last):
    test = curve([*falling(101), 3.0, 5.0, last])
    (axes,) = draw_range_test(test).axes
    bottom, top = axes.get_ylim()
    assert 0.5 < bottom < 1 < 3 < top < 4
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    assert shown[2:] == [f"valley: {test.valley:.2g}", f"steepest slope: {test.steepest:.2g}"]
    marked = {line.get_xdata()[0]: line.get_ydata()[0] for line in axes.lines if len(line.get_xdata()) == 1}
    assert marked == {rate: test.smoothed[RATES.index(rate)] for rate in (test.valley, test.steepest)}
    with matplotlib.rc_context({"text.parse_math": False}):  # as in the file
        axes.figure.draw_without_rendering()
        labels = [text.get_text() for text in axes.get_xticklabels()]
    assert {"0.0001", "0.01", "1"} <= set(labels)
    assert not [label for label in labels if "$" in label]


def test_a_curve_of_a_few_steps_that_only_rises_is_drawn():
    (axes,) = draw_range_test(curve([2.0, 3.0, 9.0])).axes
    assert axes.lines[0].get_marker() == "."
    assert len(axes.get_legend().get_texts()) == 2
    bottom, top = axes.get_ylim()
    assert bottom < 2 < top


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--epochs", "3"), ["--epochs"]),
        (("--lr", "0.1"), ["--lr"]),
        (("--crop_area", "0.5"), ["--crop_area"]),
        (("--dataset", "imagenet", "--pad_crop", "4"), ["--pad_crop"]),
        (("--dataset", "mnist"), ["mnist", "cifar10", "tiny_imagenet", "imagenet"]),
        (("--steps", "19"), ["--steps 19", r"\b20\b", r"\b21\b"]),
        (("--steps", "22"), ["--steps 22", r"\b20\b", r"\b21\b"]),
        (("--steps", "many"), ["--steps", "many"]),
        (("--batch_size", "36"), [r"\b19\b", r"\b20\b", "--batch_size"]),
        (("--data", "nowhere"), ["--data nowhere", MISSING]),
        (("--momentum", "0", "--nesterov"), ["--momentum 0", "--nesterov"]),
        (("-o", "file"), ["file"]),
        (("-o", "file/x"), ["file/x"]),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(command, tmp_path, words, parts):
    (tmp_path / "file").touch()
    assert_refused(command(FIND_LR, *SMALL, *words, code=2), *parts)
    assert names(tmp_path) == ["file"]


def test_ctrl_c_ends_it_and_leaves_nothing(command, monkeypatch, tmp_path):
    original = Batches.__getitem__

    def stopped(batches, index):
        if index == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return original(batches, index)

    monkeypatch.setattr(Batches, "__getitem__", stopped)
    done = command(FIND_LR, *SMALL, code=130)
    assert_refused(SimpleNamespace(stderr=done.stderr.lstrip("\n")), r"Ctrl\+C")
    assert names(tmp_path) == []


def test_an_image_that_can_not_be_read_is_one_line(command, monkeypatch, tmp_path):
    def broken(batches, epoch, batch, rows, original=Batches._make):
        if batch == 3:
            raise InputError("image 7 is damaged")
        return original(batches, epoch, batch, rows)

    monkeypatch.setattr(Batches, "_make", broken)
    assert_refused(command(FIND_LR, *SMALL, code=2), "image 7")
    assert names(tmp_path) == []


def test_help_lists_the_flags_of_the_data_set(command):
    own, foreign = "--pad_crop", "--crop_area"
    for words in ((), ("--dataset", "tiny_imagenet"), ("--dataset", "imagenet")):
        text = command(FIND_LR, *words, "--help").stdout
        assert_names(text, "--dataset", "--steps", "--stages", own if words[-1:] != ("imagenet",) else foreign)
        assert (foreign if words[-1:] != ("imagenet",) else own) not in text


@pytest.mark.sweep
def test_jax_and_tensorflow_find_the_same_curve_from_the_same_weights(process, tmp_path):
    (tmp_path / "curve.py").write_text("""
import json, numpy as np
from pipeline.data import CIFAR10
from pipeline.nn.conv import ResNet
from pipeline.training.rangetest import range_test

batches = CIFAR10("digits", 700).train_batches(32, seed=1)
model = ResNet.build(32, 32, 3, classes=10, stages=(1,), filters=(4, 8))
draw = np.random.default_rng(1).standard_normal
model.set_weights([0.3 * draw(old.shape) if old.ndim > 1 else old for old in model.get_weights()])
model.compile("sgd", "categorical_crossentropy")
print(json.dumps(range_test(model, batches, 21, end=1.0).losses))
batches.close()
""")
    ours, theirs = (
        json.loads(process(tmp_path / "curve.py", backend=backend, PYTHONPATH=str(ROOT)).stdout)
        for backend in ("jax", "tensorflow")
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)


@pytest.mark.sweep
def test_a_command_found_with_jax_trains_with_jax(process):
    done = process(FIND_LR, *SMALL, backend="jax", PYTHONPATH=str(ROOT))
    assert [line.partition(": ")[2].split()[0] for line in done.stdout.splitlines()[-2:]] == ["KERAS_BACKEND=jax"] * 2


@pytest.mark.sweep
def test_tiny_imagenet_is_found_by_its_variable(process, built, tmp_path):
    words = ("--dataset", "tiny_imagenet", "--batch_size", "1", "--stages", "1,1", "--filters", "4,8,16")
    done = process(FIND_LR, *words, TINY_IMAGENET_DIR=str(built), PYTHONPATH=str(ROOT))
    assert_names(done.stdout, r"/train\.py --lr [\d.e-]+ --batch_size 1 ", r"/train_decay\.py ")
    assert names(tmp_path / "output" / "find_lr") == ["tiny_imagenet.json", "tiny_imagenet.png"]
