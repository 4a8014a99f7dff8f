"""Files of format 1, written by an earlier version, open, evaluate and resume exactly.

For each backend, tests/data/format_1.tar.xz holds four runs of three epochs on the digits: an intermediate state,
inside an epoch or after one, and in end.hdf5 the final state of that version without a stop.
"""

import json
import re
import shutil
import tarfile
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from conftest import ROOT, SMALL, assert_identical
from messages import EXISTS, MISSING, assert_names, assert_refused

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.history import read_history
from pipeline.utils.environment import device, versions

BY_HAND, DECAY = "resnet_cifar10.py", "resnet_cifar10_decay.py"
# The script of each run, and its intermediate state.
RUNS = {
    "by_hand": (BY_HAND, "epoch_1_batch_3.hdf5"),
    "validation": (BY_HAND, "epoch_1_batch_4.hdf5"),
    "decay": (DECAY, "epoch_1.hdf5"),
    "averages": (DECAY, "epoch_1_batch_2.hdf5"),
}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(ROOT / "tests" / "data" / "format_1.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "format_1"


@pytest.fixture
def files(unpacked, tmp_path):
    """Unpack the TensorFlow checkpoints of each run to a writable folder."""
    return Path(shutil.copytree(unpacked / "tensorflow", tmp_path / "files", ignore=shutil.ignore_patterns("*.json")))


def go_on(run, script, folder):
    """Resume the checkpoint in `folder`, and return the file of the last epoch."""
    if script == BY_HAND:
        run(script, "-c", folder, "-m", "latest", "-o", folder)
    else:
        run(script, "-m", f"{folder}.hdf5", "--resume", "-o", folder)
    return folder / "epoch_3.hdf5"


def assert_ends_alike(end, ours):
    """Compare bit for bit on a machine like the one that wrote `end`; elsewhere rounding differs: compare losses."""
    end, ours = read_checkpoint(end), read_checkpoint(ours)
    (sitting,) = end.history["run"]["sittings"]
    for curve in ("loss", "val_loss"):
        np.testing.assert_allclose(ours.history[curve], end.history[curve], rtol=2e-2)
    here = versions() | {"python": sitting["versions"]["python"]}
    if (sitting["device"], sitting["versions"]) == (device(), here):
        assert end.arrays.keys() == ours.arrays.keys() - {"run/normalization"}
        for name, values in end.arrays.items():
            np.testing.assert_array_equal(values, ours.arrays[name], err_msg=name)
        for curve in end.history.keys() - {"run"}:
            assert ours.history[curve] == end.history[curve]


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_every_file_is_read(unpacked, backend):
    for name, (_, state) in RUNS.items():
        checkpoint = read_checkpoint(unpacked / backend / name / state)
        assert checkpoint.format == 1
        assert checkpoint.averaged == (name == "averages")
        assert checkpoint.backend == backend
        assert bool(checkpoint.metric_state) == bool(checkpoint.batch)
    assert len(read_history(unpacked / backend / "by_hand" / "resnet_cifar10.json")["loss"]) == 3


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_as_the_version_did_that_began_it(command, files, name):
    script, state = RUNS[name]
    end = files / ("by_hand" if name == "validation" else name) / "end.hdf5"
    end = end.rename(files / "end.hdf5")  # or they would be a later state
    ours = go_on(command, script, files / name)
    assert_ends_alike(end, ours)
    assert not (files / name / "earlier-1").exists()
    history = read_checkpoint(ours).history
    begun = {"versions", "device"} & history["run"].keys()
    assert not begun
    first, last = history["run"]["sittings"]
    assert (first["backend"], last["backend"]) == ("tensorflow", "tensorflow")
    progress = re.fullmatch(r"epoch_(\d)(?:_batch_(\d))?", Path(state).stem).groups(default="0")
    assert (first["epoch"], first["batch"], first["commit"]) == (0, 0, None)
    assert (last["epoch"], last["batch"]) == tuple(map(int, progress))
    assert history["seconds"][0] is None


@pytest.mark.sweep
@pytest.mark.parametrize("name", RUNS)
def test_on_jax_too(process, unpacked, tmp_path, name):
    files = Path(shutil.copytree(unpacked / "jax", tmp_path / "files"))
    end = files / ("by_hand" if name == "validation" else name) / "end.hdf5"
    end = end.rename(files / "end.hdf5")
    run = lambda *words: process(*map(str, words), backend="jax")  # noqa: E731
    assert_ends_alike(end, go_on(run, RUNS[name][0], files / name))


@pytest.mark.parametrize("name", [pytest.param("by_hand", marks=pytest.mark.sweep), "averages"])
def test_an_upgraded_file_goes_on_to_the_same_bits(command, files, name):
    script, state = RUNS[name]
    (files / name / "end.hdf5").unlink()
    (files / "new").mkdir()
    new = files / "new" / state
    done = command("pipeline/upgrade.py", files / name / state, new)
    assert_names(done.stdout, r"format 2\b")
    old, upgraded = read_checkpoint(files / name / state), read_checkpoint(new)
    assert (upgraded.format, upgraded.progress) == (2, old.progress)
    assert old.arrays.keys() == upgraded.arrays.keys() - {"run/normalization"}
    assert_identical(go_on(command, script, files / name), go_on(command, script, files / "new"))


def write_images(folder):
    """Write a training and a test image of each of two classes."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in "ab":
            (folder / split / name).mkdir(parents=True)
            cv2.imwrite(str(folder / split / name / "0.png"), rng.integers(0, 256, (32, 32, 3), np.uint8))


def test_weights_alone_evaluate_the_same_and_say_on_a_resume_what_they_lack(command, files, tmp_path):
    for name in ("decay", "averages"):
        old, new = files / name / "end.hdf5", tmp_path / name / "epoch_3.hdf5"
        new.parent.mkdir()
        command("pipeline/upgrade.py", old, new, "--weights_only")
        assert {array.partition("/")[0] for array in read_checkpoint(new).arrays} == {"model_weights", "run"}
        assert [array for array in read_checkpoint(new).arrays if array.startswith("run")] == ["run/normalization"]
        ranks = []
        for path in (old, new):
            command("rank_accuracy.py", "-m", path, "--json", "rank.json")
            ranks.append(json.loads((tmp_path / "rank.json").read_text())["rank-1"])
        assert ranks[0] == ranks[1]
        stock, own = keras.models.load_model(new, compile=False), read_checkpoint(old).build_model()
        for ours, theirs in zip(own.get_weights(), stock.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert "sound: " in command("pipeline/verify.py", new).stdout
        done = command(DECAY, "-m", tmp_path / f"{name}.hdf5", "--resume", code=2)
        assert_refused(done, "epoch_3.hdf5", "weights", "optimizer")


def test_weights_alone_name_no_folder_of_the_machine(command, tmp_path):
    write_images(tmp_path / "images")
    flags = (*SMALL, "--data", "images", "--limit", "2", "--batch_size", "2", "--epochs", "1")
    command(DECAY, *flags, "-m", "whole.hdf5")
    command("pipeline/upgrade.py", "whole.hdf5", "weights.hdf5", "--weights_only")
    files = [read_checkpoint(tmp_path / name) for name in ("whole.hdf5", "weights.hdf5")]
    assert [file.options.get("output") for file in files] == ["output", None]
    whole, weights = (file.history["run"] for file in files)
    assert whole["arguments"]["data"] == "images"
    assert weights == whole | {"arguments": whole["arguments"] | {"data": None}}
    assert "images: 2\n" in command("rank_accuracy.py", "-m", "weights.hdf5", "--data", "images").stdout


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("nothing.hdf5", "new.hdf5"), ["nothing.hdf5", "No such file"]),
        (("files/decay/end.hdf5", "files/decay/epoch_1.hdf5"), ["epoch_1.hdf5", EXISTS]),
        (
            ("files/decay/end.hdf5", "new.hdf5", "--data", "images"),
            [r"\bimages\b", "files/decay/end.hdf5"],
        ),
        (("files/decay/end.hdf5", "new.hdf5", "--data", "nowhere"), ["--data nowhere", MISSING]),
        (("files/decay/end.hdf5", "/proc/none/new.hdf5"), ["/proc/none"]),
        (("files/decay/end.hdf5", "new.txt"), ["'new.txt'", r"\.hdf5\b"]),
        (("files/averages/epoch_1_batch_2.hdf5", "new.hdf5", "--weights_only"), ["epoch_1_batch_2.hdf5", r"epoch 2\b"]),
    ],
)
def test_what_can_not_be_upgraded_is_one_line(command, files, tmp_path, words, parts):
    write_images(tmp_path / "images")
    assert_refused(command("pipeline/upgrade.py", *words, code=2), *parts)
    assert not list(tmp_path.glob("new*"))


def test_what_is_of_format_2_already_is_said(command, files, tmp_path):
    command("pipeline/upgrade.py", files / "decay" / "end.hdf5", "made/new.hdf5")
    done = command("pipeline/upgrade.py", "made/new.hdf5", "newer.hdf5", code=2)
    assert_refused(done, "made/new.hdf5", r"format 2\b", "--weights_only")
    command("pipeline/upgrade.py", "made/new.hdf5", "newer.hdf5", "--weights_only")
