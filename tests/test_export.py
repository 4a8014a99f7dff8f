"""Exporting trained networks, run by the runtime of each format."""

import os
import signal
import sys
from types import SimpleNamespace
from zipfile import ZipFile

import cv2
import keras
import numpy as np
import pytest
from messages import EXISTS, assert_names, assert_refused

from pipeline.checkpoints import Content, save_checkpoint
from pipeline.checkpoints.compiled import weights_by_name
from pipeline.checkpoints.history import new_history
from pipeline.checkpoints.state import State
from pipeline.cli import console
from pipeline.errors import InputError
from pipeline.formats import runtimes, writers
from pipeline.formats.network import classifier_of
from pipeline.formats.output import labels_of
from pipeline.io import HDF5DatasetWriter
from pipeline.nn.conv import ResNet
from pipeline.preprocessing import StandardPreprocessor

EXPORT = "pipeline/export.py"
FILES = {"keras": "model.keras", "saved_model": "", "onnx": "model.onnx", "litert": "model.tflite"}
CLASSES = ["ant", "bee, wasp", "cow"]
MEAN = np.float32([90, 120, 140])  # of B, G and R


def random_network(size, stem):
    """Return a network that depends on each channel in its own way, for images with a mean of 0."""
    model = ResNet.build(size, size, 3, len(CLASSES), (1,), (4, 8), dataset=stem)
    rng = np.random.default_rng(11)
    for weight in model.weights:
        values = rng.normal(size=weight.shape) / np.sqrt(np.prod(weight.shape[:-1]))
        if weight.name in ("gamma", "moving_variance"):
            values = 0.5 + abs(values)
        weight.assign(values * (5000 if weight.path == "input_bn/moving_variance" else 1))
    return model


def write_model(path, model, mean, **run):
    history = new_history(run | {"classes": CLASSES})
    state = State(epoch=0, batch=0, network=dict(model.network), history=history, normalization=mean.shape)
    arrays = {name: keras.ops.convert_to_numpy(weight) for name, weight in weights_by_name(model).items()}
    save_checkpoint(path, Content.of(model, state, arrays | {"run/normalization": mean}))


@pytest.fixture(scope="module")
def bgr(tmp_path_factory):
    """Return a network for Tiny ImageNet, its file, and a folder of images."""
    folder = tmp_path_factory.mktemp("bgr")
    (folder / "hdf5").mkdir()
    with HDF5DatasetWriter((20, 64, 64, 3), folder / "hdf5" / "test.hdf5") as writer:
        writer.store_class_labels(CLASSES)
        writer.add(images_of(20, 64), np.arange(20) % 3)
    network = random_network(64, "tiny_imagenet")
    write_model(folder / "model.hdf5", network, MEAN, dataset="tiny_imagenet")
    return SimpleNamespace(model=folder / "model.hdf5", data=folder, network=network)


def images_of(count, size):
    """Return noise in another colour in each image."""
    rng = np.random.default_rng(count)
    return rng.integers(0, 56, (count, size, size, 3), np.uint8) + rng.integers(0, 200, (count, 1, 1, 3), np.uint8)


def run(form, path, images):
    """Run an exported network."""
    if form == "keras":
        return keras.models.load_model(path).predict(images, verbose=0)
    if form == "saved_model":
        import tensorflow as tf

        loaded = tf.saved_model.load(str(path))  # which its functions don't keep alive
        return loaded.serve(images)["probabilities"].numpy()
    if form == "onnx":
        import onnxruntime

        return onnxruntime.InferenceSession(path).run(["probabilities"], {"images": images})[0]
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(result["index"])


@pytest.fixture
def export(command, bgr, monkeypatch):
    """Export the network of `bgr` as ONNX, checked inside this process."""
    monkeypatch.setattr(runtimes, "run_exported", lambda form, path, images: (run(form, path, images), "here"))
    words = (EXPORT, "--model", bgr.model, "--data", bgr.data, "--format", "onnx")
    return lambda *more, code=0: command(*words, *more, code=code)


@pytest.mark.parametrize("form", FILES)
def test_each_format_gives_the_probabilities_of_the_network_for_rgb_images(command, bgr, tmp_path, form):
    done = command(EXPORT, "--model", bgr.model, "--data", bgr.data, "--format", form, "new/out")
    assert done.stderr == ""
    path = tmp_path / "new" / "out" / FILES[form]
    assert_names(done.stdout, f"written: new/out/?{FILES[form]}, ", "in 20 images")
    assert (tmp_path / "new" / "out" / "labels.txt").read_text() == "ant\nbee, wasp\ncow\n"
    images = images_of(5, 64)
    expected = bgr.network.predict(images[..., ::-1] - MEAN, verbose=0)
    swapped = bgr.network.predict(images - MEAN[::-1], verbose=0)
    assert abs(expected - swapped).max() > 0.01
    found = run(form, path, images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_names_and_types_are_those_documented(bgr, tmp_path):
    import onnxruntime
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    network = classifier_of(bgr.network, StandardPreprocessor(MEAN, MEAN), "RGB")
    for form, name in FILES.items():
        writers.WRITERS[form](network, tmp_path / (name or "saved"))
    with ZipFile(tmp_path / "model.keras") as file:
        assert b"pipeline" not in file.read("config.json")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    ends = [(end.name, end.shape, end.type) for end in (*session.get_inputs(), *session.get_outputs())]
    assert ends == [("images", ["n", 64, 64, 3], "tensor(uint8)"), ("probabilities", ["n", 3], "tensor(float)")]
    signature = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    assert signature.structured_input_signature[1]["images"] == tf.TensorSpec((None, 64, 64, 3), tf.uint8, "images")
    assert list(signature.structured_outputs) == ["probabilities"]
    lite = Interpreter(str(tmp_path / "model.tflite")).get_signature_list()
    assert lite == {"serving_default": {"inputs": ["images"], "outputs": ["probabilities"]}}


def test_the_mean_and_deviation_of_channels_in_either_order_are_inside(bgr):
    images = images_of(5, 64)
    normalization = StandardPreprocessor(MEAN, np.float32([1, 2, 3]))
    for colours, seen in (("RGB", images), ("BGR", images[..., ::-1])):
        expected = bgr.network.predict(normalization.preprocess_batch(seen), verbose=0)
        found = classifier_of(bgr.network, normalization, colours).predict(images, verbose=0)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_network_trained_in_bfloat16_minus_a_mean_image_is_exported_in_float32(command, tmp_path):
    for number, image in enumerate(images_of(6, 32)):
        path = tmp_path / "images" / "test" / CLASSES[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)
    network, mean = random_network(32, "cifar10"), images_of(1, 32)[0].astype(np.float32)
    arguments = {"data": str(tmp_path / "images")}
    write_model(tmp_path / "a.hdf5", network, mean, dataset="cifar10", precision="mixed_bfloat16", arguments=arguments)
    done = command(EXPORT, "--model", "a.hdf5", "--format", "litert", "a.tflite")
    assert_names(done.stdout, "in 6 images")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.hdf5", "a.tflite", "images", "labels.txt"]
    images = images_of(5, 32)
    expected = network.predict(images - mean, verbose=0)
    np.testing.assert_allclose(run("litert", tmp_path / "a.tflite", images), expected, atol=1e-5)


def test_labels_are_one_line_each():
    assert labels_of(["bee, wasp", "naïve", "two\nlines\x1b"]) == "bee, wasp\nnaïve\ntwo\\nlines\\x1b\n".encode()


def test_nothing_is_overwritten_unless_asked(export, bgr, tmp_path):
    export("a/b.onnx")
    assert_refused(export("a/b.onnx", code=2), "a/b.onnx", EXISTS, "--overwrite")
    export("a/c.onnx")  # with the same labels
    (tmp_path / "a" / "labels.txt").write_text("cat\n")
    # These would be the wrong names of the other network.
    assert_refused(export("a/b.onnx", "--overwrite", code=2), "a/labels.txt", "a/c.onnx", "another")
    (tmp_path / "a" / "c.onnx").unlink()
    (tmp_path / "a" / "b.onnx").write_text("old")
    assert_refused(export("a/b.onnx", code=2), "a/b.onnx", EXISTS, "--overwrite")
    export("a/b.onnx", "--overwrite")
    assert run("onnx", tmp_path / "a" / "b.onnx", images_of(3, 64)).shape == (3, 3)
    assert (tmp_path / "a" / "labels.txt").read_text().startswith("ant\n")
    assert sorted(os.listdir(tmp_path / "a")) == ["b.onnx", "labels.txt"]


def test_a_saved_model_replaces_only_an_earlier_one(bgr, export, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo.png").write_text("mine")
    for more in ((), ("--overwrite",)):
        export("--format", "saved_model", *more, "out")
    assert_refused(export("--format", "saved_model", "out", code=2), "out/saved_model.pb", EXISTS)
    assert (tmp_path / "out" / "photo.png").read_text() == "mine"
    assert run("saved_model", tmp_path / "out", images_of(3, 64)).shape == (3, 3)


def test_a_wrong_output_is_one_line(export, tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "a" / "model.onnx").mkdir(parents=True)
    for words, part in (
        (("a.tflite",), "a.tflite"),
        (("--format", "saved_model", "a.keras"), "a.keras"),
        (("folder.onnx",), "folder.onnx"),
        (("file",), "file"),
        (("file/model",), "file"),
        (("a", "--overwrite"), "a/model.onnx"),
    ):
        assert_refused(export(*words, code=2), part)


def test_what_the_export_lacks_is_one_line(export, monkeypatch, tmp_path):
    assert_refused(export("--data", "none", "out", code=2), "--data", "none")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        assert_refused(export("out", code=2), "onnxruntime", "requirements-export.txt")
        assert_refused(export("--format", "keras", "--data", "none", "out", code=2), "--data", "none")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert_refused(export("out", code=2), "TensorFlow", "jax")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("wrong", [0.01, np.nan])
def test_a_network_with_other_probabilities_is_refused(export, monkeypatch, tmp_path, wrong):
    answer = runtimes.run_exported
    monkeypatch.setattr(runtimes, "run_exported", lambda *args: (answer(*args)[0] + np.float32(wrong), "Runtime 1.0"))
    assert_refused(export("new/out", code=1), "Runtime 1.0", "0.01|nan")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("reason", ["broken", "slow", "killed"])
def test_a_runtime_that_fails_is_one_line(command, bgr, monkeypatch, tmp_path, reason):
    if reason == "broken":
        monkeypatch.setitem(writers.WRITERS, "onnx", lambda model, path: path.write_bytes(b"no network"))
    elif reason == "slow":
        monkeypatch.setattr(runtimes, "SECONDS", 0.01)
    else:
        monkeypatch.setattr(sys, "executable", tmp_path / "python")
        (tmp_path / "python").write_text("#!/bin/sh\nkill -SEGV $$\n")
        (tmp_path / "python").chmod(0o755)
    done = command(EXPORT, "--model", bgr.model, "--data", bgr.data, "--format", "onnx", tmp_path / "out", code=1)
    parts = {"broken": "[Pp]rotobuf", "slow": "0.01 seconds", "killed": "SIGSEGV"}
    assert_refused(done, "ONNX Runtime", parts[reason])
    assert {*os.listdir(tmp_path)} <= {"python"}


def test_ctrl_c_leaves_nothing(export, monkeypatch, tmp_path):
    monkeypatch.setattr(runtimes, "run_exported", lambda *args: os.kill(os.getpid(), signal.SIGINT))
    assert_names(export("new/out", code=130).stderr, "Ctrl")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("error", "shown"), [(ZeroDivisionError, "reason\n"), (InputError, "")])
def test_what_libraries_print_is_shown_only_after_an_unexpected_error(capfd, error, shown):
    def fail():
        with console.hidden_stderr():
            os.write(2, b"reason\n")
            raise error

    with console.hidden_stderr():
        os.write(2, b"chatter\n")
    with pytest.raises(error):
        fail()
    assert capfd.readouterr().err == shown
