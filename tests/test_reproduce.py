"""Published experiments, one command each."""

import json
import re
import signal

import pytest
from messages import assert_names, assert_refused

from pipeline.cli.published import comparable, experiments

REPRODUCE = "benchmarks/reproduce.py"
# Instead of the experiment's flags, so that an epoch takes a second.
SMALL = ("--data", "digits", "--limit", "64", "--batch_size", "32", "--stages", "1,1", "--filters", "4,4,8")


def test_published_curves_are_complete():
    curves = {name: experiment["curves"] for name, experiment in experiments().items()}
    epochs = {"cifar10-1": 85, "cifar10-2": 85, "cifar10-3": 120, "cifar10-4": 150, "tiny-1": 70, "tiny-2": 75}
    assert {name: {len(values) for values in of.values()} for name, of in curves.items()} == {
        name: {count} for name, count in epochs.items()
    }
    # The published text; it rounds experiment 4's 93.77 up.
    finals = [curves[f"cifar10-{number}"]["val_accuracy"][-1] for number in (1, 2, 3, 4)]
    assert finals == [0.8818, 0.9324, 0.9339, 0.9377]


@pytest.mark.parametrize(
    ("script", "changed", "expected"),
    [
        ("resnet_cifar10", {"filters": (16, 16, 32, 64), "epochs": 85}, "cifar10-1"),
        ("resnet_cifar10_decay", {"epochs": 150}, "cifar10-4"),
        ("resnet_cifar10_decay", {"epochs": 120}, "cifar10-3"),
        ("resnet_cifar10", {"epochs": 60}, "cifar10-2"),
        ("resnet_cifar10", {"stages": (2, 2, 2)}, None),
        ("resnet_cifar10", {"limit": 5000}, None),
        ("resnet_cifar10", {"data": "digits"}, None),
        ("train_imagenet", {}, None),
    ],
)
def test_a_run_is_compared_with_the_published_experiment_of_its_script_and_network(script, changed, expected):
    values = {"data": None, "limit": None, "holdout": None, "epochs": 85}
    values |= {"stages": (9, 9, 9), "filters": (64, 64, 128, 256)} | changed
    assert comparable(script, values) == expected


def test_an_experiment_stops_cleanly_when_its_time_is_over(process):
    done = process(REPRODUCE, "cifar10-1", "--output", "out", *SMALL, "--max_minutes", "0.05")
    assert_names(done.stdout, "not (done|finished|complete)|unfinished|incomplete|same command")


@pytest.mark.sweep
def test_an_experiment_stops_goes_on_and_ends_in_a_table(process, started, tmp_path):
    words = (REPRODUCE, "cifar10-1", "--output", "out", *SMALL)
    run = started(*words)
    next(line for line in run.stdout if line.startswith("epoch "))
    run.send_signal(signal.SIGINT)
    output, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors
    assert_names(output, r"model/epoch_\w+\.hdf5\n")

    # The script doesn't resume an unreadable checkpoint.
    (tmp_path / "out" / "model" / "epoch_50.hdf5").write_bytes(b"x")
    done = process(*words)
    history = json.loads((tmp_path / "out" / "resnet_cifar10.json").read_text())
    assert history["learning_rate"] == [0.1] * 50 + [0.01] * 25 + [0.001] * 10
    table = (tmp_path / "out" / "cifar10-1.md").read_text()
    assert table in done.stdout
    assert_names(table, r"^# cifar10-1.*\b85\b.*\b85\b")
    assert f" | 88.18 % | {100 * history['val_accuracy'][-1]:.2f} % |" in table
    row = next(line for line in table.splitlines() if line.startswith("| 50 |"))
    published = experiments()["cifar10-1"]["curves"]
    assert row.split(" | ")[1:3] == [f"{curves['loss'][49]:.4f}" for curves in (published, history)]
    facts = dict(re.findall(r"^\| ([a-z][^|]*) \| ([^|]*) \|$", table, re.MULTILINE))

    def fact(named):
        (value,) = (value for name, value in facts.items() if re.search(named, name))
        return value

    assert float(fact("^seconds").split()[0]) > 0
    assert int(fact("images").replace(",", "")) > 0
    assert re.fullmatch(r"-?\d+\.\d %", fact(r"\bdata\b"))
    assert 0.1 < float(fact("memory").removesuffix(" GB")) < 10
    assert fact("device") == history["run"]["sittings"][-1]["device"]
    assert "seed 42" in fact("arguments")
    assert fact("commit")


@pytest.mark.sweep
def test_recipes_are_trained_once_and_set_side_by_side(process, tmp_path):
    words = ("benchmarks/recipes.py", "cifar10", "--output", "out", "--seeds", "3", "--variants", "cosine-l2", *SMALL)
    done = process(*words, "--epochs", "2", "--holdout", "50")
    history = json.loads((tmp_path / "out" / "cosine-l2-3" / "resnet_cifar10_decay.json").read_text())
    settings = history["run"]["arguments"]
    expected = {"schedule": "cosine", "pad_crop": 0, "reg": 2.5e-4, "seed": 3, "holdout": 50}
    assert {name: settings[name] for name in expected} == expected
    table = (tmp_path / "out" / "recipes.md").read_text()
    assert table in done.stdout
    accuracy = f"{100 * history['val_accuracy'][-1]:.2f}"
    assert f"| cosine-l2 | {accuracy} | **{accuracy}** | 0.00 |" in table
    done = process(*words, "--epochs", "2", "--holdout", "50")
    assert "epoch 1/2" not in done.stdout
    assert f"| cosine-l2 | {accuracy} | **{accuracy}** | 0.00 |" in done.stdout
    for flags, parts in (
        (("--variants", "best"), ["best", "cosine-l2"]),
        (("--reg", "1"), ["--reg"]),
        (("--epochs", "3", "--holdout", "50"), ["--epochs 3", "--epochs 2"]),
    ):
        assert_refused(process(*words, *flags, code=2), *parts)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("cifar10-5", "--output", "out"), ["'cifar10-5'", "cifar10-4"]),
        (("cifar10-4",), ["required: --output"]),
        (("cifar10-4", "--output", "out", "--max_minutes", "0"), ["--max_minutes", "'0'"]),
        pytest.param(
            ("cifar10-4", "--output", "out", "--no_such_flag"),
            ["resnet_cifar10_decay.py: error: ", "--no_such_flag"],
            marks=pytest.mark.sweep,
        ),
        (("cifar10-1", "--output", "out", "--lr", "0.1"), ["--lr"]),
        (("cifar10-1", "--output", "out", "-o", "elsewhere"), [r"\B-o\b"]),
        pytest.param(("tiny-1", "--output", "out", "--data", "nowhere"), ["nowhere"], marks=pytest.mark.sweep),
    ],
)
def test_a_wrong_call_is_one_line(process, words, parts):
    done = process(REPRODUCE, *words, code=2)
    assert_names(done.stderr, *parts)
    assert "Traceback" not in done.stderr
