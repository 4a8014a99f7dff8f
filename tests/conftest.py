"""Shared by the tests: the scripts as commands, and comparisons of what they write."""

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

# The package sets environment variables before any backend is loaded.
from pipeline.utils.signals import STOPS

# Modules beside this one with fixtures of their own.
pytest_plugins = ("changes", "datafile", "editing", "imagenetlayout", "steering", "stopping", "tinylayout")

ROOT = Path(__file__).resolve().parent.parent

# The default folder for checkpoints of the CIFAR-10 script with the rate by hand.
CHECKPOINTS = Path("output", "resnet_cifar10", "checkpoints")

# A network and a data set that train in seconds, with four steps per epoch. Most tests save the time of the page.
PAGED = ("--data", "digits", "--limit", "128", "--batch_size", "32", "--stages", "1", "--filters", "4,8")
SMALL = (*PAGED, "--no_page")


def pytest_configure(config):
    """Let signals through, and have JAX compile every network once for all processes of a test session."""
    # A shell's background jobs and `nohup` ignore some, and the scripts under test would inherit that.
    for number in STOPS:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        config.jax_cache = tempfile.TemporaryDirectory()
        os.environ["JAX_COMPILATION_CACHE_DIR"] = config.jax_cache.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


def pytest_unconfigure(config):
    if hasattr(config, "jax_cache"):
        config.jax_cache.cleanup()


@pytest.fixture
def process(tmp_path):
    """Run a script in a process of its own, in an empty folder, as a user would; return the finished process."""

    def run(script: str, *arguments: str, backend: str = "tensorflow", code: int = 0, **variables: str):
        done = subprocess.run(
            [sys.executable, ROOT / script, *arguments],
            cwd=tmp_path,
            env=os.environ | {"KERAS_BACKEND": backend} | variables,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def started(tmp_path):
    """Start a script as `process` does, and return the process while it runs; the end of the test kills it."""
    processes = []

    def start(script: str, *arguments: str, **options) -> subprocess.Popen:
        words = [sys.executable, ROOT / script, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(words, cwd=tmp_path, **pipes, **options))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Run a script as `process` does, but inside this process, where TensorFlow is loaded already."""

    def run(script: str, *arguments: str, code: int = 0) -> SimpleNamespace:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        for stream in ("stdout", "stderr"):  # the script wraps them
            monkeypatch.setattr(sys, stream, getattr(sys, stream))
        handlers = {number: signal.getsignal(number) for number in STOPS}
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        for number, handler in handlers.items():
            signal.signal(number, handler)
        stdout, stderr = capfd.readouterr()
        assert end.value.code == code, stdout + stderr
        return SimpleNamespace(stdout=stdout, stderr=stderr)

    return run


def load_cifar10(data=None, limit=None, holdout=None):
    """Load the arrays that a run on CIFAR-10 or a substitute trains and validates on."""
    from pipeline.data import CIFAR10

    source = CIFAR10(data, limit, holdout)
    return SimpleNamespace(
        train_images=source.train.images,
        train_labels=source.train.labels,
        test_images=source.val.images,
        test_labels=source.val.labels,
        classes=source.class_names,
        mirrors=source.mirrors,
        mean_image=lambda: source.normalization.parameters,
    )


def write_checkpoint(path, model, **parts):
    """Write a checkpoint of the compiled `model` to `path`, with the given `parts` of its state."""
    from pipeline.checkpoints.compiled import arrays_of, metrics_manifest, optimizer_record
    from pipeline.checkpoints.history import epochs_of, new_history
    from pipeline.checkpoints.state import State
    from pipeline.checkpoints.writer import Content, save_checkpoint

    history = parts.pop("history", new_history())
    parts = {"epoch": epochs_of(history), "batch": 0, "network": dict(getattr(model, "network", {}))} | parts
    parts |= {"optimizer": optimizer_record(model.optimizer), "metrics": metrics_manifest(model)}
    save_checkpoint(path, Content.of(model, State(history=history, **parts), arrays_of(model)))


def arrays(checkpoint):
    """Return every array of a checkpoint by name."""
    from pipeline.checkpoints.checkpoint import read_checkpoint

    return dict(read_checkpoint(Path(checkpoint)).arrays)


def assert_identical(one, other):
    """Assert that two checkpoints hold the same arrays and curves, except for the duration of epochs."""
    from pipeline.checkpoints.checkpoint import read_checkpoint

    ours, theirs = (read_checkpoint(Path(path)) for path in (one, other))
    assert ours.arrays.keys() == theirs.arrays.keys()
    assert any("momentum" in entry["name"] or "velocity" in entry["name"] for entry in ours.optimizer["arrays"])
    for name, values in ours.arrays.items():
        np.testing.assert_array_equal(values, theirs.arrays[name], err_msg=name)
    assert timeless(ours.history) == timeless(theirs.history)


def names(folder):
    """Return the sorted names of the files in a folder."""
    return sorted(path.name for path in folder.iterdir())


def timeless(history):
    """Return a history without durations, paths and sittings, which differ between identical runs."""
    run = {name: value for name, value in history["run"].items() if name != "sittings"}
    run["arguments"] = {name: value for name, value in run["arguments"].items() if name != "data"}
    return {name: values for name, values in history.items() if name != "seconds"} | {"run": run}


def assert_same_curves(one, other):
    """Assert that two folders hold the same plot and history, except for the duration of epochs."""
    for path in Path(one).glob("*.json"):
        ours, theirs = (json.loads((Path(folder) / path.name).read_text()) for folder in (one, other))
        assert timeless(ours) == timeless(theirs)
        assert (path.with_suffix(".png")).read_bytes() == (Path(other) / f"{path.stem}.png").read_bytes()
