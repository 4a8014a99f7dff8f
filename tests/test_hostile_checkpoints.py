"""Checkpoints that a stranger made, each with a valid digest, beside a good one."""

import json
import os
import resource
import shutil
import struct
import subprocess
import sys

import h5py
import numpy as np
import pytest
from conftest import CHECKPOINTS, ROOT, SMALL
from forge import forge, reseal
from messages import MISSING, NOT_CONTIGUOUS, REPEATED, UNEXPECTED, assert_names, assert_refused, naming

from pipeline.checkpoints.checkpoint import read_checkpoint

TWO_STAGES = ("--stages", "1,1", "--filters", "4,8,16")
KERNEL = "model_weights/conv1/conv1/kernel"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a run of one epoch has been: output/resnet_cifar10/checkpoints/epoch_1.hdf5 is good."""
    folder = tmp_path_factory.mktemp("run")
    words = [sys.executable, ROOT / "resnet_cifar10.py", *SMALL, *TWO_STAGES, "--epochs", "1"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def good(folder, tmp_path):
    return shutil.copy(folder / CHECKPOINTS / "epoch_1.hdf5", tmp_path / "epoch_1.hdf5")


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
    """Changes the JSON of the run's state."""

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
    """Changes what is said of the optimizer."""
    return state(lambda content: change(content["optimizer"]))


def slot(**parts):
    """Changes what is said of the optimizer's fourth array, the first momentum of more than three numbers."""
    return optimizer(lambda content: content["arrays"][4].update(parts))


def metrics(count, shape=()):
    """Makes it hold `count` metrics of one array of `shape` each."""
    entries = [{"name": f"m{number}", "shape": list(shape), "dtype": "float32"} for number in range(count)]
    return state(lambda content: content.update(metrics=entries))


def averaged(change=lambda file: None):
    """Makes it a checkpoint of a run that keeps averaged weights, and changes that."""

    def apply(file):
        state(lambda content: content.update(averaged=True))(file)
        for layer in file["model_weights"].values():
            for name in layer:
                file["run/raw/" + name] = 0  # makes the groups
                del file["run/raw/" + name]
                file.copy(layer[name], f"run/raw/{name}")
        change(file)

    return apply


def shared(file):
    """Beta is gamma of the same layer under another name."""
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


SLOT = "conv1_kernel_momentum"
# Each change, and what the message that refuses it names.
HOSTILE = {
    "external storage": (external, "conv1/kernel", "external|another file"),
    "virtual": (virtual, "conv1/kernel", "virtual|other datasets"),
    "soft link": (link(KERNEL, h5py.SoftLink("/elsewhere")), "conv1/kernel", "link"),
    "external link": (link(KERNEL, h5py.ExternalLink("/etc/passwd", "x")), "conv1/kernel", "link"),
    "linked group": (link("run/optimizer", h5py.SoftLink("/elsewhere")), "run/optimizer", "link"),
    "terabytes": (
        replace(KERNEL, shape=(1 << 14, 1 << 14, 1 << 14, 4), dtype="f4"), "conv1/kernel", "16384, 16384, 16384, 4"
    ),
    "terabytes of state": (replace("run/state", shape=(1 << 42,), dtype="u1"), "run/state", "4,398,046,511,104"),
    "gzip": (
        replace(KERNEL, data=np.ones((3, 3, 3, 4), "f4"), compression="gzip"), "conv1/kernel", NOT_CONTIGUOUS
    ),
    "chunks": (
        replace(KERNEL, data=np.ones((3, 3, 3, 4), "f4"), chunks=(1, 3, 3, 4)), "conv1/kernel", NOT_CONTIGUOUS
    ),
    "float64": (replace(KERNEL, data=np.ones((3, 3, 3, 4))), "conv1/kernel", "float64"),
    "texts": (replace(KERNEL, data=["x"] * 9, dtype=h5py.string_dtype()), "conv1/kernel", r"\bobject\b|string"),
    "references": (
        replace(KERNEL, shape=(3, 3, 3, 4), dtype=h5py.ref_dtype), "conv1/kernel", r"contiguous|\bobject\b|reference"
    ),
    "another shape": (
        replace(KERNEL, data=np.ones((3, 3, 3, 8), "f4")), "conv1/kernel", r"\(3, 3, 3, 8\)", r"\(3, 3, 3, 4\)"
    ),
    "a dataset more": (lambda file: file.create_dataset("run/more", data=1), "run/more", UNEXPECTED),
    "a dataset less": (lambda file: file.pop(KERNEL), "conv1/kernel", MISSING),
    "a group for a dataset": (
        lambda file: (file.pop(KERNEL), file.create_group(KERNEL)), "conv1/kernel", r"is an? \w*group"
    ),
    "a dataset for a group": (replace("run/optimizer", data=1), "run/optimizer", r"is an? \w*dataset"),
    "many metrics": (
        lambda file: [file.create_dataset(f"run/metrics/{n}", data=np.float32(0)) for n in range(40)],
        "run/metrics", UNEXPECTED,
    ),
    "another slot": (lambda file: file.create_dataset("run/optimizer/evil", data=1), "run/optimizer/evil", UNEXPECTED),
    "a slot less": (lambda file: file.pop("run/optimizer/4"), "run/optimizer/4", MISSING),
    "momentum of another shape": (
        replace("run/optimizer/4", data=np.ones((3, 3, 3, 8), "f4")), "run/optimizer/4", r"\(3, 3, 3, 8\)"
    ),
    "momentum of another type": (
        replace("run/optimizer/4", data=np.ones((3, 3, 3, 4))), "run/optimizer/4", "float64"
    ),
    "a manifest of another shape": (slot(shape=[3, 3, 3, 8]), SLOT, r"\(3, 3, 3, 8\)", "weight"),
    "a manifest of another type": (slot(dtype="object"), SLOT, "'object'", "float32"),
    "a manifest of terabytes": (slot(shape=[1 << 40]), SLOT, "1099511627776", "weight"),
    "a manifest of negative size": (slot(shape=[-1]), SLOT, r"\[-1\]"),
    "a manifest of true size": (slot(shape=[True]), SLOT, r"\[True\]"),
    "a manifest of many axes": (slot(shape=[1] * 1000), SLOT, r"\[1, 1, 1,", r"\b8\b"),
    "a name twice": (slot(name="iteration"), "optimizer", "'iteration'", REPEATED),
    "an escape in a name": (slot(name="\x1b[2J"), "optimizer", r"'\\x1b\[2J'"),
    "a name of numbers": (slot(name=[1]), "optimizer", r"(?<!class_)name.*\[1\]"),
    "a manifest more": (
        optimizer(lambda content: content["arrays"].append({"name": "evil", "shape": [], "dtype": "int64"})),
        r"run/optimizer/\d+", MISSING,
    ),
    "a million slots": (
        optimizer(lambda content: content.update(arrays=[[]] * 200_000)), "optimizer", r"\[\]", "dtype"
    ),
    "more slots than an optimizer has": (
        optimizer(lambda content: content["arrays"].extend(
            {"name": f"m{number}", "shape": [3, 3, 3, 4], "dtype": "float32"} for number in range(4)
        )),
        "optimizer", r"\b5\b", r"\(3, 3, 3, 4\)", r"\b4\b",
    ),
    "a manifest that is a number": (optimizer(lambda content: content.update(arrays=1)), "optimizer", "list"),
    "an optimizer of text": (state(lambda content: content.update(optimizer="sgd")), "class_name", "config", "arrays"),
    "a class_name of numbers": (optimizer(lambda content: content.update(class_name=[1])), "class_name", "text|str"),
    "a config of text": (
        optimizer(lambda content: content.update(config="x")), "optimizer", r"\bconfig\b", r"\bobject\b|dict|mapping"
    ),
    "a million metrics": (metrics(100_000), "metrics", "100,000", "65,536"),
    "a metric of a million numbers": (metrics(1, (1 << 20,)), "metrics", "1,048,576", "65,536"),
    "metrics of text": (state(lambda content: content.update(metrics="x")), "metrics", "list"),
    "a callback of a megabyte": (
        state(lambda content: content.update(callbacks={"x": "a" * (1 << 20)})), "1,048,578", "65,536"
    ),
    "callbacks of numbers": (
        state(lambda content: content.update(callbacks=[1])), "callbacks", r"\bobject\b|dict|mapping"
    ),
    "a normalization of another shape": (
        state(lambda content: content.update(normalization=[1 << 30])), r"\[1073741824\]", r"\[32, 32, 3\]", r"\[3\]"
    ),
    "no normalization": (lambda file: file.pop("run/normalization"), "run/normalization", MISSING),
    "a normalization that is another": (
        replace("run/normalization", data=np.ones((64, 64, 3), "f4")), "run/normalization", r"\(64, 64, 3\)"
    ),
    "a future format": (state(lambda content: content.update(format=3)), "format", r"\b3\b", r"\b2\b"),
    "a format that is none": (state(lambda content: content.update(format=[])), "format", r"\[\]"),
    "endless seconds": (state(lambda content: content.update(seconds=1e300)), "seconds", r"1e\+300"),
    "an average that is a number": (state(lambda content: content.update(averaged=1)), "averaged", "true|bool"),
    "a thousand curves": (
        state(lambda content: content["history"].update({f"m{number}": [] for number in range(1000)})), r"\b1007\b"
    ),
    "an escape in a curve": (
        state(lambda content: content["history"].update({"\x1b[2J": []})), "history", "curve|metric", r"\\x1b\[2J"
    ),
    "a curve that is a number": (state(lambda content: content["history"].update(loss=1)), "history", "loss", "list"),
    "a precision that is none": (run(precision="float8"), "precision", "'float8'"),
    "a sitting that is none": (run(sittings=[{"evil": 1}]), "sittings", "evil"),
    "a sitting of nothing": (run(sittings=[{}]), "sittings", r"\[\{\}\]"),
    "no state": (lambda file: file.pop("run/state"), "run/state", MISSING),
    "state of text": (state(lambda content: "hello"), r"char 0\b|JSON"),
    "state of numbers": (state(lambda content: "[1, 2]"), "state", r"\brun\b|\bobject\b|dict|mapping"),
    "deep state": (state(lambda content: "[" * 100_000), "nest|deep|recurs"),
    "infinite state": (state(lambda content: '{"epoch": Infinity}'), "Infinity"),
    "key twice": (state(lambda content: '{"epoch": 1, "epoch": 2}'), r"\bkey\b", REPEATED),
    "digits": (state(lambda content: '{"epoch": ' + "9" * 5000 + "}"), r"\b5000\b"),
    "negative height": (network(height=-1), "height", r"\B-1\b"),
    "giant width": (network(width=1 << 40), "width", "1099511627776"),
    "true classes": (network(classes=True), "classes", "True"),
    "giant filters": (network(filters=[1 << 17] * 3), "filters", "131072"),
    "too many weights": (network(filters=[1 << 16] * 3), "weights", "at most|maximum|limit"),
    "too many modules": (network(stages=[1000, 1000]), "modules"),
    "no stages": (network(stages=[]), "stages", r"\[\]|\(\)|none|empty"),
    "text for filters": (network(filters="4,8"), "filters", "'4,8'"),
    "another stem": (network(dataset="../../etc"), "dataset", "'../../etc'"),
    "NaN reg": (network(reg="x"), "reg", "'x'"),
    "an argument more": (network(evil=1), "'evil'"),
    "an argument less": (state(lambda content: content["network"].pop("height") and None), "'height'"),
    "lambda layer": (config(lambda_layer), "model_config", "layers"),
    "nested lambda": (config(nested_lambda), "model_config", "'Lambda'"),
    "foreign module": (config(foreign_module), "model_config", "'Conv2D'"),
    "no config": (lambda file: file.attrs.pop("model_config"), "attribute", "backend, keras_version, model_config"),
    "one attribute more": (
        lambda file: file.attrs.create("training_config", '{"class_name": "__lambda__"}'),
        "attribute", "backend, keras_version, model_config",
    ),
    "two names for one dataset": (shared, "input_bn/(gamma|beta)", "share|overlap|same bytes"),
    "an option with an escape": (options(output="\x1b[2J"), r"\boptions\b"),
    "a surrogate": (arguments(data="\ud800x"), "arguments", r"\\ud800x"),
    "a million empty lists": (options(x=[[]] * 600_000), "1,200,324", "524,288"),
    "no rates": (
        state(lambda content: content["history"].update(learning_rate=[])), r"\blearning_rate\b", r"\b0\b", "loss"
    ),
    "a loss that can't be drawn": (
        state(lambda content: content["history"].update(loss=[1e308])), "history", "loss", "numbers|1e\\+308"
    ),
    "metrics between epochs": (
        lambda file: file.create_dataset("run/metrics/0", data=np.float32(0)), "run/metrics", UNEXPECTED
    ),
    "no metrics inside an epoch": (state(lambda content: content.update(batch=2)), "run/metrics", MISSING),
    "config of numbers": (
        lambda file: file.attrs.create("model_config", np.ones(3)), "model_config", "one value|scalar|single|shape"
    ),
    "long config": (
        lambda file: file.attrs.create("model_config", "x" * (1 << 25)), "model_config", "33,554,432", "16,777,216"
    ),
    "escape in a class": (run(classes=["\x1b[2J"] * 10), "classes", r"\\x1b\[2J"),
    "escape in the script": (run(script="../../evil"), "script", "'../../evil'"),
    "data is no digest": (run(data="/etc/passwd"), "data", "'/etc/passwd'"),
    "a rate of nothing": (run(learning_rate_changes=[[1, 0, 0]]), "learning_rate_changes", r"\[\[1, 0, 0\]\]"),
    "a hundred thousand rates": (
        run(learning_rate_changes=[[1, 0, 0.1]] * 100_000), "learning_rate_changes", r"\[\[1, 0, 0.1\], \[1"
    ),
    "curves differ": (
        state(lambda content: content["history"]["loss"].append(1.0)), r"\b1\b.*accuracy|accuracy.*\b1\b", r"\b2\b"
    ),
    "raw weights of a run that averages none": (
        lambda file: file.create_dataset("run/raw/conv1/kernel", data=1), r"run/raw\b(?!/)", UNEXPECTED
    ),
    "averages without raw weights": (averaged(lambda file: file.pop("run/raw")), "run/raw", MISSING),
    "raw weights of another shape": (
        averaged(replace("run/raw/conv1/kernel", data=np.ones((3, 3, 3, 8), "f4"))),
        "run/raw/conv1/kernel", r"\(3, 3, 3, 8\)", r"\(3, 3, 3, 4\)",
    ),
    "a raw weight more": (
        averaged(lambda file: file.create_dataset("run/raw/evil", data=1)), "run/raw/evil", UNEXPECTED
    ),
    "negative epoch": (
        state(lambda content: content.update(epoch=-1)), r"contradict|consisten|epoch\D{0,9}\B-1\b|\B-1 .*epoch"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_stranger_s_checkpoint_is_refused_by_the_check_that_is_meant(good, name):
    change, *parts = HOSTILE[name]
    forge(good, change)
    with pytest.raises(ValueError, match=naming("epoch_1.hdf5", *parts)) as error:
        read_checkpoint(good)
    assert "\n" not in str(error.value)


# Sound files, which evaluate, but no run can be resumed from.
NOT_RESUMED = {
    "an option that no flag can be": (options(workers=1 << 40), "--workers", "1099511627776"),
    "a rate as text": (arguments(lr="0.1"), "--lr", "'0.1'"),
    "a list of rates": (arguments(lr=[1]), "--lr", r"\[1\]"),
    "a recipe that is a list": (arguments(recipe=["x"]), "--recipe", r"\['x'\]"),
    "a flip that is none": (arguments(flip="sideways"), "--flip", "'sideways'"),
    "an alpha beyond bounds": (arguments(mixup=1e300), "--mixup", r"1e\+300"),
    "a flag of another version": (arguments(depth=9), "depth"),
    "a value less": (
        state(lambda content: content["history"]["run"]["arguments"].pop("epochs") and None), "epochs", MISSING
    ),
    "averages that the run keeps none of": (averaged(), "averag"),
    "another optimizer": (optimizer(lambda content: content.update(class_name="Adam")), "'Adam'", "WarmupSGD"),
    "a value that this optimizer has not": (
        optimizer(lambda content: content["config"].update(x=1)), "'x'", r"\b1\b", "WarmupSGD", "None"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_RESUMED)
def test_a_sound_file_of_no_run_of_this_version_is_not_gone_on_with(command, good, name):
    change, *parts = NOT_RESUMED[name]
    forge(good, change)
    read_checkpoint(good)
    done = command("resnet_cifar10.py", "--model", good, "--epochs", "2", code=2)
    assert_refused(done, *parts)


def test_a_value_of_the_optimizer_that_one_version_of_keras_lacks_is_off(command, good):
    forge(good, optimizer(lambda content: (content["config"].update(x=None), content["config"].pop("clipnorm"))[0]))
    assert "epoch 2/2" in command("resnet_cifar10.py", "--model", good, "--epochs", "2").stdout


def test_arguments_that_this_version_does_not_know_do_not_matter_to_an_evaluation(command, good):
    forge(good, arguments(depth=9, output_stride="x", limit=None))
    assert "images: 360\n" in command("rank_accuracy.py", "--model", good).stdout
    forge(good, arguments(batch_size="x"))
    assert_refused(command("rank_accuracy.py", "--model", good, code=2), "--batch_size", "'x'")


def test_a_configuration_that_claims_to_be_giant_takes_no_memory(good):
    content = bytearray(good.read_bytes())
    name = content.index(b"model_config\0")
    place = content.index(struct.pack("<I", len(h5py.File(good).attrs["model_config"])), name)
    content[place : place + 4] = b"\xff" * 4
    good.write_bytes(content)
    reseal(good)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=naming("model_config", "4,294,967,295", "16,777,216")):
        read_checkpoint(good)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100e3


def test_a_checkpoint_whose_flags_say_another_network_builds_none(command, good):
    forge(good, arguments(stages=[55], filters=[4, 2048]))
    done = command("resnet_cifar10.py", "--model", good, "--epochs", "2", code=2)
    assert_refused(done, "epoch_1.hdf5", "network", "--stages")


def test_a_good_one_that_was_sealed_anew_is_taken(good):
    forge(good, lambda file: None)
    assert read_checkpoint(good).averages == {}
    forge(good, averaged())
    assert "input_bn/gamma" in read_checkpoint(good).averages


def test_a_network_that_does_not_name_its_stem_has_the_usual_one(command, good):
    forge(good, state(lambda content: content["network"].pop("dataset") and None))
    assert "images: 360\n" in command("rank_accuracy.py", "--model", good).stdout


def test_a_recipe_that_is_not_there_is_named(command, good):
    forge(good, arguments(recipe="best"))
    done = command("resnet_cifar10.py", "--model", good, "--epochs", "2", code=2)
    assert_refused(done, "--recipe", "'best'")


def test_a_valid_digest_over_no_hdf5_is_refused(good):
    content = good.read_bytes()
    for rest in (b"", b"hello", content[512:2000], bytes(5000), content[512:] * 2):
        good.write_bytes(content[:512] + rest)
        reseal(good)
        if rest == content[512:] * 2:
            continue  # what follows a whole file, HDF5 does not look at
        with pytest.raises(ValueError, match=naming("epoch_1.hdf5", "signature|truncated")):
            read_checkpoint(good)


def peak_memory(*words):
    """Peak memory in MB and the output of a process."""
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], capture_output=True, text=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3); print(done.stdout)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT, check=True)
    first, _, rest = done.stdout.partition("\n")
    return float(first), rest


def test_a_folder_of_hostile_files_costs_no_more_memory_than_a_good_one(good, tmp_path):
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    for number, (change, *_) in enumerate(HOSTILE.values()):
        forge(shutil.copy(good, hostile / f"epoch_{number + 1}.hdf5"), change)
    shutil.copy(good, hostile / "good.hdf5")
    before = {path: path.read_bytes() for path in hostile.iterdir()}
    usual, _ = peak_memory(sys.executable, "-m", "pipeline.verify", str(good))
    peak, output = peak_memory(sys.executable, "-m", "pipeline.verify", "--json", str(hostile))
    found = list(map(json.loads, output.splitlines()[: len(HOSTILE) + 1]))
    assert [os.path.basename(finding["path"]) for finding in found if finding["sound"]] == ["good.hdf5"]
    assert len(found) == len(HOSTILE) + 1
    assert peak < usual + 300
    assert {path: path.read_bytes() for path in hostile.iterdir()} == before


def test_a_script_refuses_one_in_a_line_and_goes_on_from_the_good_one_before_it(command, folder, tmp_path):
    shutil.copytree(folder / "output", tmp_path / "output")
    bad = shutil.copy(
        tmp_path / "output/resnet_cifar10/checkpoints/epoch_1.hdf5",
        tmp_path / "output/resnet_cifar10/checkpoints/epoch_2.hdf5",
    )
    forge(bad, network(height=-1))
    done = command("resnet_cifar10.py", "--model", bad, "--epochs", "2", code=2)
    assert_refused(done, "epoch_2.hdf5", "height", r"\B-1\b")
    # The newest by its first bytes, but no checkpoint of this project.
    content = bytearray(bad.read_bytes())
    content[56] = 2
    bad.write_bytes(content)
    done = command("resnet_cifar10.py", "--model", "latest", "--epochs", "2")
    assert_names(done.stdout + done.stderr, "epoch_2.hdf5", "height", r"\B-1\b")
    assert "epoch 2" in done.stdout


def test_it_takes_no_more_than_a_file_may_hold(good):
    """A sparse file with a valid digest: its size alone is no reason to take memory."""
    with h5py.File(good, "r+") as file:
        file.attrs["model_config"] = "x"
    os.truncate(good, 600 << 20)
    reseal(good)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=naming("epoch_1.hdf5", "629,145,088", "arrays")):
        read_checkpoint(good)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300e3
