"""The scripts as a user runs them: their output, and bad input."""

import json
import re
import shutil
import signal

import keras
import pytest
from conftest import CHECKPOINTS, SMALL
from messages import MISSING, assert_names, assert_refused

from pipeline.checkpoints import checkpoint as checkpoints

BY_HAND, DECAY = "resnet_cifar10.py", "resnet_cifar10_decay.py"


@pytest.fixture
def checkpoint(straight):
    """Return the checkpoint of a run after one of two epochs."""
    return straight() / "epoch_1.hdf5"


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


def test_no_step_is_compiled_again_under_way_but_for_the_last_batch_of_a_validation(process):
    # 120 images: three training steps, whose tail is dropped; three evaluation steps and a smaller one.
    flags = ("--limit", "120", "--epochs", "3", "--checkpoint_seconds", "0.001")
    done = process(BY_HAND, *SMALL, *flags, backend="jax", JAX_LOG_COMPILES="1")
    compiled = re.findall(r"Compiling jit\((\w+_step)\)", done.stderr)
    assert {name: compiled.count(name) for name in compiled} == {"train_step": 1, "test_step": 2, "predict_step": 1}


def test_a_terminal_less_run_prints_one_plain_line_an_epoch(process):
    done = process(BY_HAND, *SMALL, "--epochs", "2")
    lines = [line for line in done.stdout.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    # The command to resume comes first, in case the reader of the output dies with the run.
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
    """mixed_bfloat16 gives many equal scores, and other images are right than in float32."""
    command(DECAY, *SMALL, "--epochs", "2", "--precision", "mixed_bfloat16", "--limit", "360")
    reported = json.loads((tmp_path / "output" / "resnet_cifar10_decay.json").read_text())["val_accuracy"][-1]
    keras.config.set_dtype_policy("float32")  # as in a fresh process
    command("rank_accuracy.py", "--model", "output/resnet_cifar10.hdf5", "--json", "rank.json")
    ranks = json.loads((tmp_path / "rank.json").read_text())
    assert ranks["rank-1"] == pytest.approx(reported)
    checkpoint = checkpoints.read_checkpoint(tmp_path / "output" / "resnet_cifar10.hdf5")
    assert checkpoint.build_model().get_layer("conv1").compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"
