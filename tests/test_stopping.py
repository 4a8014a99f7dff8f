"""Stopping anywhere and going on: signals, the menu, disks that fail, folders that are in use."""

import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from itertools import count
from types import SimpleNamespace

import keras
import numpy as np
import pexpect
import pytest
from conftest import CHECKPOINTS, ROOT, SMALL, arrays, assert_identical, assert_same_curves, write_checkpoint
from messages import TO, assert_names, assert_refused, naming

from pipeline.callbacks import AsyncCallbackList, BatchCheckpoint, batchcheckpoint
from pipeline.callbacks.stopping import StopRequest
from pipeline.checkpoints import folder as checkpointfolder
from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.folder import CheckpointFolder, list_checkpoints
from pipeline.checkpoints.history import append_epoch, new_history
from pipeline.cli import command as command_module
from pipeline.cli import console
from pipeline.files import atomic, lock
from pipeline.io.batches import Batches

BY_HAND, DECAY = "resnet_cifar10.py", "resnet_cifar10_decay.py"
# Four steps of training an epoch and four of validation.
RUN = (*SMALL, "--epochs", "2", "--every", "1")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The run that never stopped, on each backend that is asked for."""
    runs = {}

    def run(backend="tensorflow"):
        if backend not in runs:
            runs[backend] = folder = tmp_path_factory.mktemp(backend)
            command = [sys.executable, ROOT / BY_HAND, *RUN, "-c", folder, "-o", folder]
            subprocess.run(command, check=True, capture_output=True, env=os.environ | {"KERAS_BACKEND": backend})
        return runs[backend]

    return run


def assert_same_end(straight, folder, output):
    assert_identical(straight / "epoch_2.hdf5", folder / "epoch_2.hdf5")
    assert_same_curves(straight, output)


@pytest.fixture
def stop_at(monkeypatch):
    """Sends this process a signal at the end of the N-th batch, of training or validation, counted from 1."""

    def plan(kind, number, which=signal.SIGINT, times=1):
        batches = count(1)
        original = getattr(AsyncCallbackList, f"on_{kind}_batch_end")

        def with_signal(self, *arguments, **options):
            if next(batches) == number:
                for _ in range(times):
                    os.kill(os.getpid(), which)
            return original(self, *arguments, **options)

        monkeypatch.setattr(AsyncCallbackList, f"on_{kind}_batch_end", with_signal)

    return plan


@pytest.mark.parametrize(
    ("kind", "number", "which", "left"),
    [
        ("train", 4, signal.SIGTERM, "epoch_0_batch_4.hdf5"),
        ("test", 2, signal.SIGINT, "epoch_0_batch_4.hdf5"),
        ("train", 7, signal.SIGTERM, "epoch_1_batch_3.hdf5"),
        ("train", 3, signal.SIGUSR1, "epoch_0_batch_3.hdf5"),
    ],
)
def test_a_signal_saves_at_the_end_of_the_batch_and_the_run_goes_on_exactly(
    command, straight, stop_at, monkeypatch, tmp_path, kind, number, which, left
):
    stop_at(kind, number, which)
    done = command(BY_HAND, *RUN, "-c", "c", code=128 + which)
    monkeypatch.undo()
    assert re.fullmatch(r".* \S+ \S*resnet_cifar10\.py --checkpoints c --model latest", done.stdout.splitlines()[-1])
    assert "Traceback" not in done.stderr
    assert list_checkpoints(tmp_path / "c")[-1].name == left
    done = command(BY_HAND, "-c", tmp_path / "c", "-m", "latest", "-o", tmp_path / "output")
    assert "accuracy: " in done.stdout
    assert_same_end(straight(), tmp_path / "c", tmp_path / "output")
    # Superfluous once a newer one is safe.
    assert [path.name for path in list_checkpoints(tmp_path / "c")] == ["epoch_1.hdf5", "epoch_2.hdf5"]


STOPPED = {"SIGINT": 130, "SIGTERM": 143, "SIGKILL": -9, "save": -9}


def launch(folder, kind="none", number=0, backend="tensorflow", workers=2):
    """A run in `folder`, from its newest checkpoint if it has one, that point `number` of tests/faults.py stops."""
    command = [sys.executable, ROOT / "tests" / "faults.py", kind, str(number), ROOT / BY_HAND]
    command += ["-c", folder / "c", "-o", folder / "o", "--workers", str(workers), "--checkpoint_seconds", "0.001"]
    command += ["-m", "latest"] if list_checkpoints(folder / "c") else RUN
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "Traceback" not in done.stderr
    return done


def start(folder, kind="none", *options, **more):
    """The exit code of `launch`: 0, or that of a process stopped so."""
    done = launch(folder, kind, *options, **more)
    assert done.returncode in (0, STOPPED.get(kind)), done.stderr
    return done.returncode


def assert_nothing_lost(straight, folder):
    assert not list((folder / "c").glob("*.tmp"))
    assert_same_end(straight, folder / "c", folder / "o")


@pytest.mark.parametrize(
    ("kind", "number", "backend"),
    [("save", 11, "tensorflow"), pytest.param("SIGINT", 2, "jax", marks=pytest.mark.sweep)],
)
def test_a_process_stopped_at_a_batch_or_in_a_save_goes_on_exactly(straight, tmp_path, kind, number, backend):
    assert start(tmp_path, kind, number, backend) == STOPPED[kind]
    assert start(tmp_path, backend=backend) == 0
    assert_nothing_lost(straight(backend), tmp_path)


@pytest.mark.torture
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
@pytest.mark.parametrize("kind", ["SIGKILL", "SIGINT", "SIGTERM"])
def test_a_run_stopped_at_each_batch_in_turn(straight, tmp_path, kind, backend, workers):
    """One run, stopped at batch 1, gone on with to batch 2, and so on through training and validation."""
    for point in range(1, 17):
        done = [read_checkpoint(path) for path in list_checkpoints(tmp_path / "c")[-1:]]
        passed = sum(8 * checkpoint.epoch + checkpoint.batch for checkpoint in done)
        assert start(tmp_path, kind, point - passed, backend, workers) == STOPPED[kind]
    assert start(tmp_path, backend=backend, workers=workers) == 0
    assert_nothing_lost(straight(backend), tmp_path)


@pytest.mark.torture
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
@pytest.mark.parametrize("part", range(8))
def test_a_run_killed_at_each_step_of_its_saves(straight, tmp_path, part, backend, record_property):
    """Every eighth step, from `part` on, so that the parts can run beside each other."""
    stops = 0
    for number in count(part + 1, 8):
        folder = tmp_path / str(number)
        if start(folder, "save", number, backend, workers=1 + stops % 2) == 0:
            break
        assert start(folder, backend=backend) == 0
        assert_nothing_lost(straight(backend), folder)
        shutil.rmtree(folder)
        stops += 1
    assert stops >= 8
    record_property("stops", stops)


@pytest.mark.parametrize("place", ["fsync", pytest.param("savefig", marks=pytest.mark.sweep)])
def test_ten_times_ctrl_c_in_a_save_or_a_plot_stops_at_once_and_harms_nothing(straight, tmp_path, place):
    done = launch(tmp_path, f"storm in {place}", 2)
    assert done.returncode == 130
    asked, ended = filter(None, done.stderr.splitlines())
    assert_names(asked, r"Ctrl\+C")
    assert_names(ended, "checkpoint")
    assert start(tmp_path) == 0
    assert_nothing_lost(straight(), tmp_path)


@pytest.mark.parametrize(
    ("seconds", "number"),
    [(0.1, signal.SIGINT), (0.2, signal.SIGTERM), (1.0, signal.SIGINT), (2.0, signal.SIGTERM), (4.0, signal.SIGHUP)],
)
def test_a_signal_before_training_ends_without_a_traceback(started, seconds, number):
    process = started(BY_HAND, *SMALL, "--epochs", "1000")
    time.sleep(seconds)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors


@pytest.fixture
def terminal(tmp_path):
    """A run on a pseudo-terminal, typed to by a program; `logfile_read` holds all that it has shown."""
    words = [str(ROOT / BY_HAND), *SMALL, "--epochs", "5000", "--every", "5000"]
    child = pexpect.spawn(sys.executable, words, cwd=tmp_path, encoding="utf-8", timeout=120)
    child.logfile_read = io.StringIO()
    child.expect(r"Epoch 2/")
    yield child
    child.close(force=True)


def ends_with(terminal, code):
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert "Traceback" not in terminal.logfile_read.getvalue()
    assert terminal.exitstatus == code


def test_the_menu_goes_on_changes_the_rate_and_stops(terminal, tmp_path):
    terminal.sendintr()
    terminal.expect_exact("> ")
    terminal.sendline("nonsense")
    terminal.expect_exact("'nonsense'")
    terminal.expect_exact("> ")
    terminal.sendline("c")
    terminal.expect(r"Epoch \d+/")
    terminal.sendintr()
    terminal.expect(r"learning rate 0\.1\b")
    terminal.expect_exact("> ")
    terminal.sendline("0.01")
    terminal.expect(rf"\b0\.1 {TO} 0\.01\b")
    terminal.expect(r"Epoch \d+/")
    terminal.sendintr()
    terminal.expect(r"learning rate 0\.01\b")
    terminal.expect_exact("> ")
    terminal.sendline("s")
    terminal.expect(r"\S+ \S+resnet_cifar10\.py --checkpoints \S+ --model latest")
    ends_with(terminal, 130)
    (left,) = list_checkpoints(tmp_path / CHECKPOINTS)
    run = read_checkpoint(left).history["run"]
    ((epoch, batch, rate),) = run["learning_rate_changes"]
    assert rate == run["arguments"]["lr"] == 0.01
    assert 0 <= batch <= 4
    assert epoch >= 0


@pytest.mark.parametrize(
    ("end", "code"),
    [("end of file", 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)],
)
def test_a_menu_that_nobody_answers_any_more_stops(terminal, tmp_path, end, code):
    terminal.sendintr()
    terminal.expect_exact("> ")
    if end == "end of file":
        terminal.sendeof()
    else:
        terminal.kill(end)
    ends_with(terminal, code)
    assert len(list_checkpoints(tmp_path / CHECKPOINTS)) == 1


def test_two_runs_in_one_folder(process, started, tmp_path):
    first = started(BY_HAND, *SMALL, "--epochs", "10000")
    wait_for_epoch(first)
    second = process(BY_HAND, *SMALL, code=2)
    first.kill()
    first.wait()
    assert_refused(second, str(CHECKPOINTS), rf"\b{first.pid}\b", r"\b\d{4}-\d\d-\d\d\b")
    # The system has let go of the dead run's lock.
    with lock.Lock(tmp_path / CHECKPOINTS):
        pass


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dense(20_000)(inputs))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.train_on_batch(np.ones((1, 8)), np.ones((1, 20_000)))
    return model


def history_of(accuracies):
    history = new_history()
    for accuracy in accuracies:
        logs = {"loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": accuracy}
        append_epoch(history, logs, 0.1)
    return history


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_and_the_best_stay_over_a_restart(model, tmp_path):
    history = history_of([])
    for epoch, accuracy in enumerate([0.3, 0.9, 0.5, 0.6, 0.4], start=1):
        logs = {"loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": accuracy}
        append_epoch(history, logs, 0.1)
        # As a process that has just started would do.
        assert CheckpointFolder(tmp_path, history=history, keep=2).save(model, epoch)
    assert names(tmp_path) == ["epoch_2.hdf5", "epoch_4.hdf5", "epoch_5.hdf5"]
    assert CheckpointFolder(tmp_path, history=history, keep=2).save(model, 5, 3)
    assert CheckpointFolder(tmp_path, history=history, keep=2).save(model, 5, 7)
    assert names(tmp_path) == ["epoch_2.hdf5", "epoch_4.hdf5", "epoch_5.hdf5", "epoch_5_batch_7.hdf5"]


def test_the_best_is_that_of_the_averaged_weights_where_a_run_keeps_them(model, tmp_path):
    history = new_history({"arguments": {"ema": 0.9}})
    for epoch, (raw, averaged) in enumerate([(0.3, 0.8), (0.9, 0.5), (0.5, 0.6), (0.6, 0.7)], start=1):
        logs = {"loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": raw}
        append_epoch(history, logs | {"ema_val_loss": 1.0, "ema_val_accuracy": averaged}, 0.1)
        assert CheckpointFolder(tmp_path, history=history, keep=1).save(model, epoch)
    assert names(tmp_path) == ["epoch_1.hdf5", "epoch_4.hdf5"]


def test_seconds_between_checkpoints_count_through_validation_and_the_end_of_an_epoch(model, monkeypatch, tmp_path):
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(batchcheckpoint, "time", clock)
    monkeypatch.setattr(checkpointfolder, "time", clock)
    saved = []
    record = lambda path, *state: saved.append((path.stem, clock.now))  # noqa: E731
    monkeypatch.setattr(checkpointfolder, "save_checkpoint", record)
    checkpoints = CheckpointFolder(tmp_path, history=history_of([]))
    callback = BatchCheckpoint(checkpoints, StopRequest(), 2, lambda *progress: "stop", 60.0)
    callback.set_model(model)
    # 25 seconds a batch, two of training and one of validation an epoch; no checkpoint at an epoch's end.
    for epoch in range(3):
        callback.on_epoch_begin(epoch)
        for end, batch in (("train", 0), ("train", 1), ("test", 0)):
            clock.now += 25
            getattr(callback, f"on_{end}_batch_end")(batch)
        callback.on_epoch_end(epoch, dict.fromkeys(("loss", "val_loss"), 1.0))
    assert saved == [("epoch_0_batch_2", 75), ("epoch_1_batch_2", 150), ("epoch_2_batch_2", 225)]
    callback.on_epoch_begin(3)
    clock.now += 59
    callback.on_train_batch_end(0)
    clock.now += 1
    callback.on_train_batch_end(1)
    assert saved[3:] == [("epoch_3_batch_2", 285)]


def test_nothing_goes_before_its_successor_is_safe(model, tmp_path, monkeypatch, caplog):
    checkpoints = CheckpointFolder(tmp_path, history=history_of([0.1]), keep=1)
    assert checkpoints.save(model, 1, 2)
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert not checkpoints.save(model, 1, 4)
    assert names(tmp_path) == ["epoch_1_batch_2.hdf5"]
    assert checkpoints.failures == 1
    assert_names(caplog.text, "epoch_1_batch_4.hdf5", "No space left on device", r"\d,\d{3} bytes.*\d,\d{3}")


def test_the_newest_is_found_by_what_is_written_inside(model, tmp_path):
    def save(name, epoch, batch):
        write_checkpoint(tmp_path / name, model, history=history_of([0.1] * epoch), batch=batch)

    save("epoch_9.hdf5", 1, 0)
    save("epoch_1.hdf5", 3, 0)
    save("copy of mine.hdf5", 3, 5)
    (tmp_path / "epoch_2.hdf5").write_bytes(b"no checkpoint")
    (tmp_path / "other.hdf5").write_bytes(b"no checkpoint")
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "epoch_9.hdf5", "epoch_2.hdf5", "epoch_1.hdf5", "copy of mine.hdf5",
    ]  # fmt: skip


def test_a_disk_that_fails_at_every_64_kib_of_a_save_damages_nothing(model, tmp_path):
    path = tmp_path / "epoch_1.hdf5"
    history = history_of([0.1])
    write_checkpoint(path, model, history=history)
    content = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    tried = 0
    for size in range(0, len(content), 1 << 16):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            with pytest.raises(
                atomic.WriteError, match=naming("epoch_1.hdf5", "File too large", f"{len(content):,} bytes")
            ):
                write_checkpoint(path, model, history=history)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == content
        assert names(tmp_path) == ["epoch_1.hdf5"]
        tried += 1
    assert tried > 10


def test_a_save_syncs_the_file_before_the_rename_and_the_folder_after_it(model, tmp_path, monkeypatch):
    calls = []

    def record(name):
        original = getattr(os, name)

        def recording(first, *rest):
            target = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else str(first)
            calls.append((name, "folder" if target == str(tmp_path) else "file"))
            return original(first, *rest)

        monkeypatch.setattr(os, name, recording)

    record("fsync")
    record("replace")
    assert CheckpointFolder(tmp_path, history=history_of([0.1])).save(model, 1)
    assert calls == [("fsync", "file"), ("replace", "file"), ("fsync", "folder")]


def test_a_folder_removed_under_way_is_told_and_the_run_goes_on(command, monkeypatch, tmp_path):
    original = keras.callbacks.CallbackList.on_epoch_begin

    def removing(self, epoch, logs=None):
        if epoch == 1:
            shutil.rmtree(tmp_path / "c")
            (tmp_path / "c").write_text("a file in its place")
        if epoch == 2:
            (tmp_path / "c").unlink()
        return original(self, epoch, logs)

    monkeypatch.setattr(keras.callbacks.CallbackList, "on_epoch_begin", removing)
    done = command(BY_HAND, *SMALL, "--epochs", "3", "--every", "1", "-c", tmp_path / "c", code=1)
    assert_names(
        done.stderr, r"epoch_2\.hdf5.*File exists.*\d,\d{3} bytes", rf" {tmp_path}/c[^/]*\n", r"error: .*\b2\b"
    )
    assert "accuracy: " in done.stdout
    assert names(tmp_path / "c") == [".lock", "epoch_3.hdf5"]
    assert len(json.loads((tmp_path / "output" / "resnet_cifar10.json").read_text())["loss"]) == 3


def test_unfinished_files_of_dead_runs_are_swept_and_nothing_else(command, tmp_path):
    (tmp_path / CHECKPOINTS / "mine.tmp").mkdir(parents=True)
    checkpoints = "resnet_cifar10/checkpoints"
    for place in (f"{checkpoints}/epoch_5.hdf5.77.tmp", "resnet_cifar10.json.77.tmp"):
        (tmp_path / "output" / place).write_text("half")
    for place in (f"{checkpoints}/mine.77.tmp", f"{checkpoints}/epoch_5.tmp", "train.json.77.tmp"):
        (tmp_path / "output" / place).write_text("of someone else")
    command(BY_HAND, *SMALL, "--epochs", "1")
    assert sorted(path.name for path in (tmp_path / "output").rglob("*.tmp")) == [
        "epoch_5.tmp", "mine.77.tmp", "mine.tmp", "train.json.77.tmp",
    ]  # fmt: skip


def wait_for_epoch(process):
    while not process.stdout.readline().startswith("epoch 1/"):
        assert process.poll() is None


@pytest.mark.parametrize("streams", [pytest.param(("stdout",), marks=pytest.mark.sweep), ("stdout", "stderr")])
def test_ctrl_c_that_also_ends_the_reader_of_the_output_loses_nothing(started, tmp_path, streams):
    process = started(BY_HAND, *SMALL, "--epochs", "10000")
    wait_for_epoch(process)
    for stream in streams:
        getattr(process, stream).close()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert list_checkpoints(tmp_path / CHECKPOINTS)


def test_a_log_on_a_full_disk_stops_no_run(tmp_path):
    words = [sys.executable, ROOT / BY_HAND, *RUN]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert_refused(done, f"^{BY_HAND}: error: ", "No space left on device")
    assert list_checkpoints(tmp_path / CHECKPOINTS)[-1].name == "epoch_2.hdf5"


def test_a_run_without_any_stream_runs(tmp_path):
    line = " ".join(map(str, [sys.executable, ROOT / BY_HAND, *RUN]))
    assert subprocess.run(["/bin/sh", "-c", f"{line} <&- >&- 2>&-"], cwd=tmp_path).returncode == 0
    assert list_checkpoints(tmp_path / CHECKPOINTS)[-1].name == "epoch_2.hdf5"


@pytest.mark.parametrize("tidy", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_where_python_drops_exceptions_still_counts(tidy, number):
    code = (
        "import gc, os; from pipeline.cli import command\n"
        f"gc.callbacks.append(lambda *_: os.kill(os.getpid(), {int(number)}) or [0 for _ in range(9999)])\n"
        f"command.run(gc.collect, tidy={tidy})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 128 + number


def test_another_run_s_state_inside_its_first_epoch_is_kept(command, stop_at, monkeypatch, tmp_path, straight):
    stop_at("train", 2)
    command(BY_HAND, *RUN, "--seed", "2", "-c", "c", code=130)
    monkeypatch.undo()
    left = tmp_path / "c" / "epoch_0_batch_2.hdf5"
    content = left.read_bytes()
    done = command(BY_HAND, "-c", "c", "-m", straight() / "epoch_1.hdf5", "-o", "o")
    assert (tmp_path / "c" / "earlier-1" / left.name).read_bytes() == content
    assert_names(done.stdout, r"c/earlier-1.*: epoch_0_batch_2\.hdf5\n")


def test_a_run_s_own_state_inside_its_first_epoch_goes_with_another_rate_too(command, stop_at, monkeypatch, tmp_path):
    stop_at("train", 2)
    command(BY_HAND, *RUN, code=130)
    monkeypatch.undo()
    command(BY_HAND, "-m", "latest", "--lr", "0.05")
    assert [path.name for path in list_checkpoints(tmp_path / CHECKPOINTS)] == ["epoch_1.hdf5", "epoch_2.hdf5"]
    assert not (tmp_path / CHECKPOINTS / "earlier-1").exists()


FAILING = """
import sys
sys.path.insert(0, {root!r})
from pipeline.io.batches import Batches

make, reads = Batches._make, []

def fail(self, epoch, batch, rows):
    reads.append(self.training)
    if {condition}:
        raise OSError(5, "Input/output error", "train.hdf5")
    return make(self, epoch, batch, rows)

Batches._make = fail
"""
DISK_ERROR = ("^resnet_cifar10.py: error: ", "Input/output error", "'train.hdf5'")


def test_a_batch_that_fails_is_told_as_itself_and_what_was_trained_before_is_saved(
    command, monkeypatch, straight, tmp_path
):
    """The third batch of the second epoch, as on a disk that has gone."""
    monkeypatch.setattr(Batches, "_make", Batches._make)
    third = "self.training and self.epoch == 1 and rows[0] == self._order[2 * self.batch_size]"
    exec(FAILING.format(root=str(ROOT), condition=third), {})  # noqa: S102
    done = command(BY_HAND, *RUN, "-c", "c", "-o", "o", code=1)
    assert_refused(done, *DISK_ERROR)
    assert list_checkpoints(tmp_path / "c")[-1].name == "epoch_1_batch_2.hdf5"
    assert done.stdout.endswith(f"{BY_HAND} --checkpoints c --model latest\n")
    monkeypatch.undo()
    command(BY_HAND, "-c", tmp_path / "c", "-m", "latest", "-o", tmp_path / "o")
    assert_same_end(straight(), tmp_path / "c", tmp_path / "o")


def test_on_jax_too_and_while_averages_are_validated_the_raw_weights_are_kept(process, tmp_path):
    """The second batch of the second validation of the first epoch, of four batches each."""
    script = tmp_path / BY_HAND
    run = f"import runpy\nrunpy.run_path({str(ROOT / BY_HAND)!r}, run_name='__main__')"
    script.write_text(FAILING.format(root=str(ROOT), condition="reads.count(False) >= 6") + run)
    done = process(script, *RUN, "--ema", "0.9", "--workers", "1", "-c", "c", backend="jax", code=1)
    assert_names(done.stderr.splitlines()[-1], *DISK_ERROR)
    assert "Traceback" not in done.stderr
    assert list_checkpoints(tmp_path / "c")[-1].name == "epoch_0_batch_4.hdf5"
    saved = arrays(tmp_path / "c" / "epoch_0_batch_4.hdf5")
    assert not np.array_equal(saved["run/raw/conv1/kernel"], saved["model_weights/conv1/conv1/kernel"])


def test_a_state_inside_an_epoch_is_no_result_of_the_one_before(command, stop_at, monkeypatch, tmp_path):
    stop_at("train", 7)
    command(DECAY, *RUN, "-m", "m.hdf5", code=130)
    monkeypatch.undo()
    done = command(DECAY, "-m", "m.hdf5", "--resume", "--stop_after", "1", code=2)
    assert_refused(done, "epoch_1_batch_3.hdf5", r"epoch 2\b", r"epoch 1\b")
    assert not (tmp_path / "m.hdf5").exists()


def test_a_lock_is_taken_again_where_the_folder_was_removed(tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()
    with lock.Lock(folder) as first:
        shutil.rmtree(folder)
        folder.mkdir()
        held = naming(str(folder), rf"\b{os.getpid()}\b")
        with lock.Lock(folder), pytest.raises(ValueError, match=held):
            first.hold()
        first.hold()
        with pytest.raises(ValueError, match=held):
            lock.Lock(folder).hold()


def test_a_run_that_another_process_went_on_with_meanwhile_is_not_gone_on_with(command, monkeypatch, tmp_path):
    command(BY_HAND, *RUN, "--stop_after", "1")
    folder = tmp_path / CHECKPOINTS
    original = lock.Lock.hold

    def hold(self):
        shutil.copy(folder / "epoch_1.hdf5", folder / "epoch_2.hdf5")
        original(self)

    monkeypatch.setattr(lock.Lock, "hold", hold)
    done = command(BY_HAND, "-m", "latest", code=2)
    assert_refused(done, str(CHECKPOINTS), r"\bprocess\b")
    assert names(folder) == [".lock", "epoch_1.hdf5", "epoch_2.hdf5"]


def test_a_run_that_diverges_inside_an_epoch_leaves_no_checkpoint_of_it(command, tmp_path):
    done = command(BY_HAND, *RUN, "--lr", "1e30", "--checkpoint_seconds", "0.001", code=2)
    assert_names(done.stderr, r"\bloss\b", r"epoch 1\b", r"batch \d", "--lr")
    for path in list_checkpoints(tmp_path / CHECKPOINTS):
        assert all(np.isfinite(values).all() for values in read_checkpoint(path).metric_state)


def test_curves_that_are_missing_are_written_by_a_run_that_is_done(command, straight, tmp_path):
    command(BY_HAND, *RUN)
    command(BY_HAND, "-m", "latest", "-o", tmp_path / "new")
    assert_same_curves(straight(), tmp_path / "new")


@pytest.fixture
def typed(monkeypatch):
    """Makes a run in this process believe that it is on a terminal; each menu gets the next of the answers."""

    asked = []

    def answer(*answers):
        answers = iter(answers)
        monkeypatch.setattr(command_module.Stream, "isatty", lambda self: True, raising=False)
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
        monkeypatch.setattr(console, "ask", lambda message, given_up: asked.append(message) or next(answers))
        return asked

    return answer


def test_a_chosen_rate_is_safe_at_once(command, stop_at, typed, tmp_path, monkeypatch):
    stop_at("train", 2)
    typed(0.02)
    kept = []
    monkeypatch.setattr(CheckpointFolder, "_thin_out", lambda self, newest: kept.append(newest))
    command(BY_HAND, *RUN)
    assert (0, 2) in kept
    run = read_checkpoint(tmp_path / CHECKPOINTS / "epoch_0_batch_2.hdf5").history["run"]
    assert run["learning_rate_changes"] == [[0, 2, 0.02]]
    assert run["arguments"]["lr"] == 0.02


def test_within_a_warm_up_the_menu_tells_both_rates_and_takes_the_one_to_rise_to(command, stop_at, typed, tmp_path):
    stop_at("train", 2)
    asked = typed(0.04)
    command(BY_HAND, *RUN, "--warmup_epochs", "1")
    (message,) = asked
    assert_names(message, r"epoch 0\b", r"batch 2\b", r"\b0\.05\b.*\b0\.1\b")
    history = json.loads((tmp_path / "output" / "resnet_cifar10.json").read_text())
    assert history["learning_rate"] == [0.04, 0.04]
    assert history["run"]["learning_rate_changes"] == [[0, 2, 0.04]]


def test_a_terminal_that_closes_loses_nothing(terminal, tmp_path):
    terminal.ptyproc.fileobj.close()
    terminal.wait()
    assert terminal.exitstatus == 129
    assert list_checkpoints(tmp_path / CHECKPOINTS)


@pytest.mark.parametrize(("script", "rates"), [(BY_HAND, [0.1, 0.02]), (DECAY, [0.1, 0.02])])
def test_a_rate_chosen_in_validation_is_that_of_the_next_epoch(command, stop_at, typed, tmp_path, script, rates):
    stop_at("test", 2)
    typed(0.02)
    command(script, *RUN, *(("-m", "m.hdf5") if script == DECAY else ()))
    history = json.loads((tmp_path / "output" / f"{script[:-3]}.json").read_text())
    assert history["learning_rate"] == rates
    assert history["run"]["learning_rate_changes"] == [[1, 0, pytest.approx(0.02)]]


def test_a_rate_chosen_in_validation_outlives_a_stop_there(command, stop_at, typed, tmp_path, monkeypatch):
    stop_at("test", 2)
    stop_at("test", 3)
    typed(0.02, "stop")
    done = command(BY_HAND, *RUN, code=130)
    assert_names(done.stdout, rf"\b0\.1 {TO} 0\.02\b.*epoch 2\b")
    monkeypatch.undo()
    command(BY_HAND, "-m", "latest")
    history = json.loads((tmp_path / "output" / "resnet_cifar10.json").read_text())
    assert history["learning_rate"] == [0.1, 0.02]
    assert history["run"]["learning_rate_changes"] == [[1, 0, 0.02]]


def test_in_the_last_validation_no_rate_is_asked_for(command, stop_at, typed, tmp_path):
    stop_at("test", 7)
    asked = typed()
    command(DECAY, *RUN, code=130)
    assert not asked
    done = command(DECAY, "--resume", "--lr", "0.2", code=2)
    assert_refused(done, "--lr 0.2", r"\b0\b", r"epoch 2\b")
    command(DECAY, "--resume")


def test_a_rate_given_where_only_validation_is_left_is_that_of_the_next_epoch(command, stop_at, monkeypatch, tmp_path):
    stop_at("test", 2)
    command(BY_HAND, *RUN, code=130)
    monkeypatch.undo()
    command(BY_HAND, "-m", "latest", "--lr", "0.02")
    history = json.loads((tmp_path / "output" / "resnet_cifar10.json").read_text())
    assert history["learning_rate"] == [0.1, 0.02]
    assert history["run"]["learning_rate_changes"] == [[1, 0, 0.02]]


@pytest.fixture
def failing_save(monkeypatch):
    """Lets the first save fail."""
    original, saves = atomic.flush, count()

    def flush(path):
        if next(saves) == 0:
            raise OSError(28, "No space left on device")
        original(path)

    monkeypatch.setattr(atomic, "flush", flush)


def test_a_stop_that_can_not_be_saved_asks_again_on_a_terminal(command, stop_at, typed, failing_save, tmp_path):
    stop_at("train", 2)
    typed("stop", "stop")
    done = command(BY_HAND, *RUN, code=130)
    assert_names(done.stderr, "epoch_0_batch_2.hdf5", "No space left on device", "not saved|unsaved")
    assert_names(done.stdout, rf" {CHECKPOINTS}/epoch_0_batch_2\.hdf5\n")


def test_a_stop_that_can_not_be_saved_is_told_elsewhere(command, stop_at, monkeypatch):
    stop_at("train", 2)
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    done = command(BY_HAND, *RUN, code=1)
    assert_names(done.stderr, "epoch_0_batch_2.hdf5", "No space left on device", "not saved|unsaved")
    # The command that resumes is printed at the start alone.
    assert done.stdout.count("--model latest") == 1
