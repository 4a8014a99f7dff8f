"""The checkpoint file: content, stock Keras, damage."""

import hashlib
import json
import os
import struct
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import write_checkpoint
from messages import CORRUPT, naming

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.history import append_epoch, new_history
from pipeline.checkpoints.listing import list_checkpoints
from pipeline.nn.conv import ResNet

NETWORK = {"height": 16, "width": 16, "depth": 3, "classes": 5, "stages": [1, 1], "filters": [8, 8, 16]}


def build(seed, **changes):
    keras.utils.set_random_seed(seed)
    model = ResNet.build(**NETWORK | changes)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, name="sgd"), "categorical_crossentropy")
    return model


def batch():
    rng = np.random.default_rng(0)
    return rng.normal(0, 60, (8, 16, 16, 3)).astype(np.float32), np.eye(5, dtype=np.float32)[rng.integers(0, 5, 8)]


def state(model):
    return [keras.ops.convert_to_numpy(variable) for variable in (*model.weights, *model.optimizer.variables)]


@pytest.fixture
def trained(tmp_path):
    """A model after two steps, and its checkpoint."""
    model = build(1)
    for _ in range(2):
        model.train_on_batch(*batch())
    history = new_history({"script": "test"})
    append_epoch(history, {"loss": 1.5, "accuracy": 0.1}, 0.1)
    path = tmp_path / "epoch_1.hdf5"
    write_checkpoint(path, model, history=history, options={"every": 2})
    return model, path


def test_everything_comes_back_to_the_bit(trained):
    model, path = trained
    checkpoint = read_checkpoint(path)
    assert checkpoint.progress == (1, 0)
    assert NETWORK.items() <= checkpoint.network.items()
    assert checkpoint.history["loss"] == [1.5]
    assert checkpoint.options == {"every": 2}
    other = build(2)
    other.optimizer.build(other.trainable_variables)
    checkpoint.restore(other)
    for ours, theirs in zip(state(model), state(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    model.train_on_batch(*batch())
    other.train_on_batch(*batch())
    for ours, theirs in zip(state(model), state(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_stock_keras_alone_opens_it_and_predicts_the_same(trained, tmp_path):
    model, _ = trained
    images = batch()[0]
    np.save(tmp_path / "images.npy", images)
    code = (
        "import keras, numpy as np; model = keras.models.load_model('epoch_1.hdf5', compile=False);"
        "np.save('predictions.npy', model.predict(np.load('images.npy'), verbose=0))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, stderr=subprocess.DEVNULL)
    predictions = np.load(tmp_path / "predictions.npy")
    # Stock layers do the same arithmetic in another order.
    np.testing.assert_allclose(predictions, model.predict(images, verbose=0), atol=1e-5)


def test_user_block_holds_length_and_digest_of_what_follows(trained):
    content = trained[1].read_bytes()
    length, digest = struct.unpack_from("<16xQ32s", content)
    assert content[:12] == b"ResNet run 1"
    assert length == len(content) - 512
    assert digest == hashlib.sha256(content[512:]).digest()
    assert content[512:520] == b"\x89HDF\r\n\x1a\n"


def test_a_flipped_bit_anywhere_is_noticed(trained):
    _, path = trained
    content = path.read_bytes()
    for position in [*range(16, 56, 5), *range(512, len(content), 997)]:
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=naming("epoch_1.hdf5", CORRUPT)):
            read_checkpoint(path)


def test_a_file_cut_short_is_noticed(trained):
    _, path = trained
    content = path.read_bytes()
    for length in range(0, len(content), 1009):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=naming("epoch_1.hdf5", f"{CORRUPT}|checkpoint")):
            read_checkpoint(path)


def test_other_files_are_told_apart(tmp_path):
    path = tmp_path / "model.hdf5"
    with pytest.raises(ValueError, match=naming("model.hdf5", "No such file")):
        read_checkpoint(path)
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)
    with pytest.raises(ValueError, match=naming("model.hdf5", "not a checkpoint|no checkpoint")):
        read_checkpoint(path)


def test_another_network_is_refused(trained):
    checkpoint = read_checkpoint(trained[1])
    for changes, parts in (
        ({"filters": [8, 8, 32]}, ["filters", r"\[8, 8, 16\]", r"\[8, 8, 32\]"]),
        ({"stages": [2, 1]}, ["stages", r"\[1, 1\]", r"\[2, 1\]"]),
    ):
        other = build(1, **changes)
        other.optimizer.build(other.trainable_variables)
        with pytest.raises(ValueError, match=naming("epoch_1.hdf5", *parts)):
            checkpoint.restore(other)


def test_a_failed_save_leaves_the_file_before_it(trained, monkeypatch):
    model, path = trained
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, full_disk)
            with pytest.raises(OSError, match="No space"):
                write_checkpoint(path, model)
        assert path.read_bytes() == before
        assert os.listdir(path.parent) == [path.name]


def test_a_save_syncs_the_file_then_renames_then_syncs_the_folder(trained, monkeypatch):
    model, path = trained
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    write_checkpoint(path, model)
    assert calls[0].endswith(".tmp")
    assert calls[1:] == ["rename", str(path.parent)]


def test_a_state_that_contradicts_itself_is_refused(trained, tmp_path):
    with pytest.raises(ValueError, match=r"epoch\b.*\b7\b"):
        write_checkpoint(tmp_path / "epoch_7.hdf5", trained[0], epoch=7)
    assert not (tmp_path / "epoch_7.hdf5").exists()


def test_checkpoints_are_listed_by_epoch_and_nothing_else_is(tmp_path):
    for name in ("epoch_5.hdf5", "epoch_10.hdf5", "epoch_5.hdf5.77.tmp", "epoch_x.hdf5", "other.json"):
        (tmp_path / name).touch()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["epoch_5.hdf5", "epoch_10.hdf5"]
    assert list_checkpoints(tmp_path / "missing") == []


def test_configuration_holds_no_code(trained):
    import h5py

    with h5py.File(trained[1]) as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
    assert {layer["module"] for layer in layers} == {"keras.layers"}
    assert "Lambda" not in {layer["class_name"] for layer in layers}
