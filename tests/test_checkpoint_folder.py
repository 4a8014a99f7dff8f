"""The checkpoints of a folder: writing, keeping, finding the newest."""

import os
import resource
import threading
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest
from conftest import names, write_checkpoint
from messages import assert_names, naming

from pipeline.callbacks import BatchCheckpoint, batchcheckpoint
from pipeline.callbacks.stopping import StopRequest
from pipeline.checkpoints import folder as checkpointfolder
from pipeline.checkpoints.folder import CheckpointFolder
from pipeline.checkpoints.history import append_epoch, new_history
from pipeline.checkpoints.listing import list_checkpoints
from pipeline.files import atomic


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


def test_the_newest_and_the_best_stay_over_a_restart(model, tmp_path):
    history = history_of([])
    for epoch, accuracy in enumerate([0.3, 0.9, 0.5, 0.6, 0.4], start=1):
        logs = {"loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": accuracy}
        append_epoch(history, logs, 0.1)
        # Like a process that has just started.
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
    record = lambda path, content: saved.append((path.stem, clock.now))  # noqa: E731
    monkeypatch.setattr(checkpointfolder, "save_checkpoint", record)
    checkpoints = CheckpointFolder(tmp_path, history=history_of([]))
    callback = BatchCheckpoint(checkpoints, StopRequest(), 2, lambda *progress: "stop", 60.0)
    callback.set_model(model)
    # 25 seconds per batch; two training batches and one validation batch per epoch; no epoch checkpoints.
    for epoch in range(3):
        callback.on_epoch_begin(epoch)
        for end, batch in (("train", 0), ("train", 1), ("test", 0)):
            clock.now += 25
            getattr(callback, f"on_{end}_batch_end")(batch)
            checkpoints.finish()
        callback.on_epoch_end(epoch, dict.fromkeys(("loss", "val_loss"), 1.0))
    assert saved == [("epoch_0_batch_2", 75), ("epoch_1_batch_2", 150), ("epoch_2_batch_2", 225)]
    callback.on_epoch_begin(3)
    clock.now += 59
    callback.on_train_batch_end(0)
    clock.now += 1
    callback.on_train_batch_end(1)
    checkpoints.finish()
    assert saved[3:] == [("epoch_3_batch_2", 285)]


def test_training_goes_on_while_a_checkpoint_is_written(model, tmp_path, monkeypatch):
    release, original = threading.Event(), checkpointfolder.save_checkpoint

    def slow(path, content):
        assert release.wait(60)
        original(path, content)

    monkeypatch.setattr(checkpointfolder, "save_checkpoint", slow)
    checkpoints = CheckpointFolder(tmp_path, history=history_of([]))
    before = {weight.path: weight.numpy() for weight in (*model.weights, *model.optimizer.variables)}
    written = checkpoints.start_save(model, 0, 1, checkpoints.mid_epoch(model))
    model.train_on_batch(np.ones((1, 8)), np.zeros((1, 20_000)))
    assert not written.done()
    assert names(tmp_path) == []
    release.set()
    assert written.result()
    with h5py.File(tmp_path / "epoch_0_batch_1.hdf5") as file:
        for weight in model.weights:
            stored = file["model_weights"][weight.path.partition("/")[0]][weight.path][()]
            np.testing.assert_array_equal(stored, before[weight.path])
            assert (stored != weight.numpy()).any()
        for number, variable in enumerate(model.optimizer.variables):
            np.testing.assert_array_equal(file["run/optimizer"][str(number)][()], before[variable.path])


def test_no_second_copy_of_the_state_is_made_before_the_first_is_written(model, tmp_path, monkeypatch):
    release, copies = threading.Event(), []
    monkeypatch.setattr(checkpointfolder, "save_checkpoint", lambda path, content: release.wait(60))
    original = checkpointfolder.arrays_of
    monkeypatch.setattr(checkpointfolder, "arrays_of", lambda *args: copies.append(args) or original(*args))
    checkpoints = CheckpointFolder(tmp_path, history=history_of([]))
    mid_epoch = checkpoints.mid_epoch(model)
    checkpoints.start_save(model, 0, 1, mid_epoch)
    second = threading.Thread(target=lambda: checkpoints.save(model, 0, 2, mid_epoch))
    second.start()
    second.join(0.3)
    assert second.is_alive()
    assert len(copies) == 1
    release.set()
    second.join(60)
    assert len(copies) == 2
    assert checkpoints.saved == (0, 2)


@pytest.mark.parametrize("error", [MemoryError(), ZeroDivisionError("a bug")])
def test_an_unexpected_error_of_a_write_is_reported_and_the_next_save_succeeds(
    model, tmp_path, monkeypatch, caplog, error
):
    with monkeypatch.context() as patch:
        patch.setattr(checkpointfolder, "save_checkpoint", lambda *args: (_ for _ in ()).throw(error))
        checkpoints = CheckpointFolder(tmp_path, history=history_of([]))
        assert not checkpoints.save(model, 0, 1, checkpoints.mid_epoch(model))
    assert_names(caplog.text, type(error).__name__, "next save")
    assert checkpoints.save(model, 0, 2, checkpoints.mid_epoch(model))
    assert (checkpoints.failures, names(tmp_path)) == (1, ["epoch_0_batch_2.hdf5"])


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
