"""The scripts as a user runs them: stop, resume, report, and what goes wrong."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from conftest import CHECKPOINTS, ROOT, SMALL, assert_identical, assert_same_curves, timeless
from forge import forge
from messages import MISSING, TO, assert_names, assert_refused

from config import cifar10_config, tiny_imagenet_config
from pipeline.checkpoints import checkpoint as checkpoints
from pipeline.checkpoints.folder import list_checkpoints

BY_HAND, DECAY = "resnet_cifar10.py", "resnet_cifar10_decay.py"
CURVES = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


def check_resume(run, folder, stops, **options):
    """A run of four epochs against one resumed after each of `stops`, (epoch, workers), bit by bit."""
    run(
        BY_HAND,
        *SMALL,
        "--epochs",
        "4",
        "--every",
        "1",
        "-c",
        "straight",
        "-o",
        "straight",
        "--workers",
        "1",
        **options,
    )
    for epoch, workers in stops:
        resumed = folder / f"from_{epoch}_with_{workers}"
        resumed.mkdir()
        shutil.copy(folder / "straight" / f"epoch_{epoch}.hdf5", resumed)
        flags = ("--model", "latest", "--start_epoch", str(epoch), "--workers", workers)
        run(BY_HAND, "-c", resumed, "-o", resumed, *flags, **options)
        assert_identical(folder / "straight" / "epoch_4.hdf5", resumed / "epoch_4.hdf5")
        assert_same_curves(folder / "straight", resumed)


def test_resuming_after_any_epoch_equals_the_run_that_never_stopped(command, tmp_path):
    check_resume(command, tmp_path, [(1, "2"), (3, "1")])


@pytest.mark.sweep
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_resuming_in_new_processes_after_each_epoch_with_1_and_2_workers(process, tmp_path, backend):
    check_resume(process, tmp_path, [(epoch, workers) for epoch in (1, 2, 3) for workers in "12"], backend=backend)


@pytest.mark.sweep
def test_a_run_killed_between_epochs_resumes_exactly(command, process, started, tmp_path):
    options = (*SMALL, "--epochs", "4", "--every", "1")
    command(DECAY, *options, "-m", "straight.hdf5", "-o", "straight_output")
    killed = started(DECAY, *options, "-m", "killed.hdf5")
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "epoch_2.hdf5").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed.hdf5").exists()
    process(DECAY, "-m", "killed.hdf5", "--resume")
    assert_identical(tmp_path / "straight.hdf5", tmp_path / "killed.hdf5")
    # Killed between the last checkpoint and the trained model.
    (tmp_path / "killed.hdf5").unlink()
    command(DECAY, "-m", "killed.hdf5", "--resume")
    assert_identical(tmp_path / "straight.hdf5", tmp_path / "killed.hdf5")
    ours, theirs = (
        json.loads((tmp_path / folder / "resnet_cifar10_decay.json").read_text())
        for folder in ("output", "straight_output")
    )
    assert timeless(ours) == timeless(theirs)
    np.testing.assert_allclose(ours["learning_rate"], [0.1, 0.075, 0.05, 0.025])


def test_learning_rate_changes_by_hand(command, tmp_path):
    command(BY_HAND, *SMALL, "--epochs", "6", "--stop_after", "2", "--every", "1", "-c", "checkpoints")
    options = ("-c", "checkpoints", "--model", "checkpoints/epoch_1.hdf", "--stop-after", "3", "--lr", "0.01")
    done = command(BY_HAND, *options)
    assert_names(done.stdout, rf"\b0\.1 {TO} 0\.01\b", "accuracy: ", "precision +recall")
    history = json.loads((tmp_path / "output" / "resnet_cifar10.json").read_text())
    assert history["learning_rate"] == [0.1, 0.01, 0.01]
    assert history["run"]["learning_rate_changes"] == [[1, 0, 0.01]]
    # The second epoch of the run before is kept, not overwritten; its history too.
    earlier = tmp_path / "output" / "earlier-1"
    assert len(json.loads((earlier / "resnet_cifar10.json").read_text())["loss"]) == 2
    assert [path.name for path in (tmp_path / "checkpoints" / "earlier-1").iterdir()] == ["epoch_2.hdf5"]
    # Going on once more keeps the rate, and past the last epoch there is nothing to do but report.
    done = command(BY_HAND, "-c", "checkpoints", "--model", "latest", "--epochs", "3")
    assert not re.search(rf"\d {TO} \d", done.stdout)
    assert_names(done.stdout, r"epoch 3\b.*(reached|already|done|complete)", "accuracy: ")


def test_a_decay_goes_on_from_another_rate(command, tmp_path):
    command(DECAY, *SMALL, "--epochs", "4", "--stop_after", "2", "--every", "1")
    done = command(DECAY, "--resume", "--lr", "0.04")
    assert_names(done.stdout, rf"\b0\.05 {TO} 0\.02\b")
    history = json.loads((tmp_path / "output" / "resnet_cifar10_decay.json").read_text())
    np.testing.assert_allclose(history["learning_rate"], [0.1, 0.075, 0.02, 0.01])
    (change,) = history["run"]["learning_rate_changes"]
    np.testing.assert_allclose(change, [2, 0, 0.02])
    # The new start of the decay is the run's own from here on.
    assert not re.search(rf"\d {TO} \d", command(DECAY, "--resume").stdout)
    done = command(DECAY, "--resume", "--lr", "0.01", code=2)
    assert_refused(done, "--lr 0.01", r"\b0\b", r"epoch 4\b")


def test_a_fresh_run_keeps_what_another_wrote(command, tmp_path):
    options = (*SMALL, "--epochs", "1", "-m", "output/model.hdf5")
    written = [
        tmp_path / "output" / name
        for name in ("model.hdf5", "model/epoch_1.hdf5", "resnet_cifar10_decay.json", "resnet_cifar10_decay.png")
    ]
    command(DECAY, *options, "--seed", "1")
    first = [path.read_bytes() for path in written]
    done = command(DECAY, *options, "--seed", "2")
    assert "earlier-1" in done.stdout
    for path, content in zip(written, first, strict=True):
        assert path.read_bytes() != content
        assert (path.parent / "earlier-1" / path.name).read_bytes() == content
    command(DECAY, *options, "--seed", "3")
    assert (tmp_path / "output" / "earlier-2").is_dir()
    assert sorted(path.name for path in (tmp_path / "output").glob("*.json")) == ["resnet_cifar10_decay.json"]


def test_jax_trains_and_resumes_where_tensorflow_is_missing(process, tmp_path):
    (tmp_path / "absent" / "tensorflow").mkdir(parents=True)
    (tmp_path / "absent" / "tensorflow" / "__init__.py").write_text("raise ModuleNotFoundError('tensorflow')")
    path = str(tmp_path / "absent")
    options = (*SMALL, "--epochs", "2", "--every", "1")
    process(DECAY, *options, "--stop_after", "1", backend="jax", PYTHONPATH=path)
    process(DECAY, "--resume", backend="jax", PYTHONPATH=path)
    history = json.loads((tmp_path / "output" / "resnet_cifar10_decay.json").read_text())
    assert len(history["loss"]) == 2
    assert [sitting["backend"] for sitting in history["run"]["sittings"]] == ["jax", "jax"]
    assert all("jax" in sitting["versions"] for sitting in history["run"]["sittings"])
    done = process(DECAY, *options, code=2, PYTHONPATH=path)
    assert_refused(done, "tensorflow", "KERAS_BACKEND=jax")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of one epoch, for what goes wrong on a resume."""
    folder = tmp_path_factory.mktemp("run")
    command = [sys.executable, ROOT / BY_HAND, *SMALL, "--epochs", "1", "-c", folder, "-o", folder]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "epoch_1.hdf5"


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (("--start_epoch", "3"), ["--start_epoch 3", r"\b1\b"]),
        (("--batch_size", "64"), ["--batch_size 64", "--batch_size 32"]),
        (("--limit", "129"), ["--limit 129", "--limit 128"]),
        (("--seed", "7"), ["--seed 7", "--seed 42"]),
        (("--data", "nowhere"), ["--data nowhere", MISSING]),
    ],
)
def test_a_flag_that_contradicts_the_checkpoint_is_an_error(command, checkpoint, flags, parts):
    assert_refused(command(BY_HAND, "--model", checkpoint, *flags, code=2), *parts)


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (("--start_epoch", "3"), ["--start_epoch 3", r"\b0\b"]),
        (("--model", "missing.hdf5"), ["missing.hdf5", "No such file"]),
        (("--filters", "4,8,16"), [r"filters\b.*\b3\b", r"stages\b.*\b1\b"]),
        (("--limit", "20"), [r"\b20\b", r"\b32\b"]),
        (("--output", "/proc/none"), ["/proc/none"]),
        (("--checkpoints", "/proc/none"), ["/proc/none"]),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(command, tmp_path, flags, parts):
    assert_refused(command(BY_HAND, *SMALL, "--epochs", "1", *flags, code=2), *parts)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(command, checkpoint, tmp_path):
    shutil.copy(checkpoint, tmp_path / "epoch_1.hdf5")
    (tmp_path / "epoch_2.hdf5").write_bytes(checkpoint.read_bytes()[:-1])
    done = command(BY_HAND, "-c", tmp_path, "--model", "latest", "--epochs", "1")
    size = f"{checkpoint.stat().st_size - 512:,}"
    assert_refused(done, "epoch_2.hdf5", size)
    assert_names(done.stdout, r"epoch 1\b", "accuracy: ")
    done = command(BY_HAND, "--model", tmp_path / "epoch_2.hdf5", code=2)
    assert_refused(done, "epoch_2.hdf5", size)


def test_latest_without_a_checkpoint_starts_from_the_beginning(command):
    done = command(BY_HAND, *SMALL, "--epochs", "1", "--model", "latest")
    assert_names(done.stdout, f"no checkpoint.*{CHECKPOINTS}|{CHECKPOINTS}.*no checkpoint", "epoch 1/1")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.sweep)]
)
def test_signals_end_without_a_traceback(started, number, code):
    process = started(BY_HAND, *SMALL, "--epochs", "1000", "--every", "1")
    while not process.stdout.readline().startswith("epoch 2/"):
        assert process.poll() is None
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert_names(errors, rf"(Ctrl\+C|{signal.Signals(number).name}).*\bbatch\b")
    assert "resnet_cifar10.py --checkpoints output/resnet_cifar10/checkpoints --model latest\n" in output


def test_no_step_is_compiled_again_under_way_but_for_the_last_batch_of_an_evaluation(process):
    # 120 images: three steps and a tail that training drops, three steps and a smaller one of evaluation.
    flags = ("--limit", "120", "--epochs", "3", "--checkpoint_seconds", "0.001")
    done = process(BY_HAND, *SMALL, *flags, backend="jax", JAX_LOG_COMPILES="1")
    compiled = re.findall(r"Compiling jit\((\w+_step)\)", done.stderr)
    assert {name: compiled.count(name) for name in compiled} == {"train_step": 1, "test_step": 2, "predict_step": 2}


def test_a_terminal_less_run_prints_one_plain_line_an_epoch(process):
    done = process(BY_HAND, *SMALL, "--epochs", "2")
    lines = [line for line in done.stdout.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    # The command that goes on comes first, for a run whose reader dies with it.
    start = done.stdout.partition("\nepoch 1/")[0]
    assert f"{BY_HAND} --checkpoints {CHECKPOINTS} --model latest\n" in start
    assert "\b" not in done.stdout
    assert done.stderr == ""


def test_architecture_is_printed_as_in_the_published_tables(process):
    table = process("visualize_architecture.py", "--dataset", "tiny_imagenet", PATH="").stdout
    cells = [[cell.strip() for cell in line.split("|")[1:4]] for line in table.splitlines() if line.startswith("|")]
    assert ["conv1", "64 x 64 x 64", "5 x 5, 64, stride 1"] in cells
    assert ["max pool", "32 x 32 x 64", "3 x 3, stride 2"] in cells
    assert ["conv4_x", "8 x 8 x 512", "[1 x 1, 128; 3 x 3, 128; 1 x 1, 512] x 6"] in cells
    assert ["avg pool", "1 x 1 x 512", "8 x 8, stride 8"] in cells
    assert_names(table, r"2,265,748\b.*\b2,252,046", "pydot")


def test_a_network_is_scored_as_it_was_trained(command, tmp_path):
    """In mixed_bfloat16 many scores are the same, and other images are right than in float32."""
    command(DECAY, *SMALL, "--epochs", "2", "--precision", "mixed_bfloat16", "--limit", "360")
    reported = json.loads((tmp_path / "output" / "resnet_cifar10_decay.json").read_text())["val_accuracy"][-1]
    keras.config.set_dtype_policy("float32")  # as in a process of its own
    command("rank_accuracy.py", "--model", "output/resnet_cifar10.hdf5", "--json", "rank.json")
    ranks = json.loads((tmp_path / "rank.json").read_text())
    assert ranks["rank-1"] == pytest.approx(reported)
    checkpoint = checkpoints.read_checkpoint(tmp_path / "output" / "resnet_cifar10.hdf5")
    assert checkpoint.build_model().get_layer("conv1").compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"


def write_image_folder(folder):
    for place in ("train/ant", "train/bee", "test/ant", "test/bee"):
        (folder / place).mkdir(parents=True)
        for number in range(2):
            cv2.imwrite(str(folder / place / f"{number}.png"), np.full((32, 32, 3), 50 * number, np.uint8))
    return folder


def test_a_resume_from_elsewhere_says_where_files_go_and_whose_value_is_missing(command, checkpoint, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    folder = write_image_folder(tmp_path / "data")
    flags = ("--stages", "1", "--filters", "4,8", "--batch_size", "2", "--epochs", "2", "--stop_after", "1")
    command(BY_HAND, "--data", folder.name, *flags, "-c", here)
    shutil.move(folder, tmp_path / "moved")
    done = command(BY_HAND, "-m", here / "epoch_1.hdf5", code=2)
    assert_refused(done, "--data data", MISSING, str(tmp_path))
    done = command(BY_HAND, "-m", here / "epoch_1.hdf5", "--data", "moved")
    assert_names(done.stdout, rf" {tmp_path}/output\b.*--output output\b", f" {here}\n")


def test_following_the_readme_no_script_meets_another_s_checkpoints():
    folders = [cifar10_config.CHECKPOINTS, tiny_imagenet_config.CHECKPOINTS]
    folders += [str(Path(config.MODEL).with_suffix("")) for config in (cifar10_config, tiny_imagenet_config)]
    assert len({Path(folder) for folder in folders}) == 4


def test_a_start_on_a_folder_of_checkpoints_reads_one_whole_and_the_seals_of_the_others(command, monkeypatch, tmp_path):
    options = (*SMALL, "--every", "1", "-c", "c", "-o", "o")
    command(BY_HAND, *options, "--epochs", "6")
    opened, original = [], checkpoints.open_sealed

    def record(path, *arguments, **others):
        opened.append(Path(path).name)
        return original(path, *arguments, **others)

    monkeypatch.setattr(checkpoints, "open_sealed", record)
    command(BY_HAND, "-c", "c", "-m", "latest", "--epochs", "7", "--lr", "0.05")
    assert opened == ["epoch_6.hdf5"]
    assert len(list_checkpoints(tmp_path / "c")) == 7
    # From an earlier one those beyond it are of a future that is not taken, and from the start all.
    done = command(BY_HAND, "-c", "c", "-m", "c/epoch_3.hdf5", "--epochs", "4")
    assert opened == ["epoch_6.hdf5", "epoch_3.hdf5"]
    assert_names(done.stdout, "c/earlier-1.*: epoch_4.hdf5, epoch_5.hdf5, epoch_6.hdf5, epoch_7.hdf5\n")
    command(BY_HAND, *options, "--epochs", "1", "--seed", "1")
    assert opened == ["epoch_6.hdf5", "epoch_3.hdf5"]
    assert sorted(path.name for path in (tmp_path / "c" / "earlier-2").iterdir()) == [
        f"epoch_{epoch}.hdf5" for epoch in range(1, 5)
    ]


def test_a_checkpoint_of_another_run_in_the_folder_is_known_by_its_seal(command, tmp_path):
    command(BY_HAND, *SMALL, "--epochs", "1", "-c", "other", "--seed", "1", "-o", "x")
    command(BY_HAND, *SMALL, "--epochs", "2", "--every", "2", "-c", "c", "-o", "o")
    (tmp_path / "other" / "epoch_1.hdf5").rename(tmp_path / "c" / "epoch_1.hdf5")
    done = command(BY_HAND, "-c", "c", "-m", "latest", "--epochs", "3")
    assert_names(done.stdout, "c/earlier-1.*: epoch_1.hdf5\n")


def test_a_checkpoint_that_names_no_data_set_is_of_that_of_its_script(command, tmp_path):
    command(BY_HAND, *SMALL, "--epochs", "1", "-c", "c")
    path = tmp_path / "c" / "epoch_1.hdf5"
    assert checkpoints.read_checkpoint(path).history["run"]["dataset"] == "cifar10"

    def forget(file):
        state = json.loads(file["run/state"][()].tobytes())
        del state["history"]["run"]["dataset"]
        del file["run/state"]
        file["run/state"] = np.frombuffer(json.dumps(state).encode(), np.uint8)

    forge(path, forget)
    assert "images: 360\n" in command("rank_accuracy.py", "-m", path).stdout
    # And what was sealed before seals said whose a file is goes on where it is.
    assert "earlier" not in command(BY_HAND, "-c", "c", "-m", "latest", "--epochs", "2").stdout
    assert [path.name for path in list_checkpoints(tmp_path / "c")] == ["epoch_1.hdf5", "epoch_2.hdf5"]


def test_a_checkpoint_of_this_run_whose_seal_says_otherwise_is_read(command, tmp_path):
    """As of one from before a flag was added."""
    command(BY_HAND, *SMALL, "--epochs", "2", "--every", "1", "-c", "c")
    content = bytearray((tmp_path / "c" / "epoch_1.hdf5").read_bytes())
    content[80] ^= 1
    (tmp_path / "c" / "epoch_1.hdf5").write_bytes(content)
    assert "earlier" not in command(BY_HAND, "-c", "c", "-m", "latest", "--epochs", "3").stdout


def test_a_damaged_model_is_not_taken_for_written(command, tmp_path):
    command(DECAY, *SMALL, "--epochs", "1")
    model = tmp_path / "output" / "resnet_cifar10.hdf5"
    content = bytearray(model.read_bytes())
    content[20_000] ^= 1
    model.write_bytes(content)
    done = command(DECAY, "--resume")
    assert_names(done.stdout, "output/earlier-1.*: resnet_cifar10.hdf5\n")
    checkpoints.read_checkpoint(model)
