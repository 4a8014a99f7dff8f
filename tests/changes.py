"""A good checkpoint, and changes that a stranger could make."""

import json
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from conftest import CHECKPOINTS, ROOT, SMALL

TWO_STAGES = ("--stages", "1,1", "--filters", "4,8,16")
KERNEL = "model_weights/conv1/conv1/kernel"


@pytest.fixture(scope="session")
def good_run(tmp_path_factory):
    """Train one epoch; return the folder with output/resnet_cifar10/checkpoints/epoch_1.hdf5."""
    folder = tmp_path_factory.mktemp("good")
    words = [sys.executable, ROOT / "resnet_cifar10.py", *SMALL, *TWO_STAGES, "--epochs", "1"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def good(good_run, tmp_path):
    """Copy the good checkpoint, to change it."""
    return shutil.copy(good_run / CHECKPOINTS / "epoch_1.hdf5", tmp_path / "epoch_1.hdf5")


def replace(name, **options):
    def change(file):
        del file[name]
        file.create_dataset(name, **options)

    return change


def link(name, target):
    def change(file):
        file.move(name, "elsewhere")
        file[name] = target

    return change


def external(file):
    del file[KERNEL]
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_external(b"/etc/passwd", 0, h5py.h5f.UNLIMITED)
    space = h5py.h5s.create_simple((3, 3, 3, 4))
    h5py.h5d.create(file.id, KERNEL.encode(), h5py.h5t.IEEE_F32LE, space, properties)


def virtual(file):
    layout = h5py.VirtualLayout((3, 3, 3, 4), np.float32)
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3, 3, 3, 4))
    del file[KERNEL]
    file.create_virtual_dataset(KERNEL, layout)


def state(change):
    """Change the JSON of the run's state."""

    def apply(file):
        content = json.loads(file["run/state"][()].tobytes())
        content = change(content) or content
        text = content if isinstance(content, str) else json.dumps(content)
        del file["run/state"]
        file["run/state"] = np.frombuffer(text.encode(), np.uint8)

    return apply


def network(**arguments):
    return state(lambda content: content["network"].update(arguments))


def run(**parts):
    return state(lambda content: content["history"]["run"].update(parts))


def arguments(**values):
    return state(lambda content: content["history"]["run"]["arguments"].update(values))


def options(**values):
    return state(lambda content: content["options"].update(values))


def optimizer(change):
    """Change the optimizer's part of the state."""
    return state(lambda content: change(content["optimizer"]))


def slot(**parts):
    """Change the manifest of the optimizer's fifth array, the first momentum of more than three numbers."""
    return optimizer(lambda content: content["arrays"][4].update(parts))


def metrics(count, shape=()):
    """Give the state `count` metrics, each with an array of `shape`."""
    entries = [{"name": f"m{number}", "shape": list(shape), "dtype": "float32"} for number in range(count)]
    return state(lambda content: content.update(metrics=entries))


def averaged(change=lambda file: None):
    """Make it a checkpoint of a run that averages weights, and change it."""

    def apply(file):
        state(lambda content: content.update(averaged=True))(file)
        for layer in file["model_weights"].values():
            for name in layer:
                file["run/raw/" + name] = 0  # creates the groups
                del file["run/raw/" + name]
                file.copy(layer[name], f"run/raw/{name}")
        change(file)

    return apply


def shared(file):
    """Make beta the gamma of the same layer under another name."""
    layer = file["model_weights/input_bn/input_bn"]
    del layer["beta"]
    layer["beta"] = layer["gamma"]


def config(change):
    def apply(file):
        content = json.loads(file.attrs["model_config"])
        change(content["config"]["layers"])
        file.attrs["model_config"] = json.dumps(content)

    return apply


def lambda_layer(layers):
    layers[5] |= {"class_name": "Lambda", "config": {"name": layers[5]["name"], "function": "evil"}}


def nested_lambda(layers):
    layers[5]["config"]["activity_regularizer"] = {"class_name": "Lambda", "module": "keras.layers", "config": {}}


def foreign_module(layers):
    layers[5]["module"] = "os"
