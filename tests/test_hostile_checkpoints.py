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


HOSTILE = {
    "external storage": (external, "kernel lies in another file"),
    "virtual": (virtual, "kernel is put together from other datasets"),
    "soft link": (link(KERNEL, h5py.SoftLink("/elsewhere")), "kernel is a link that leads elsewhere"),
    "external link": (link(KERNEL, h5py.ExternalLink("/etc/passwd", "x")), "kernel is a link that leads elsewhere"),
    "linked group": (link("run/optimizer", h5py.SoftLink("/elsewhere")), "run/optimizer is a link"),
    "terabytes": (replace(KERNEL, shape=(1 << 14, 1 << 14, 1 << 14, 4), dtype="f4"), "has shape"),
    "terabytes of state": (replace("run/state", shape=(1 << 42,), dtype="u1"), "which the file does not hold"),
    "gzip": (replace(KERNEL, data=np.ones((3, 3, 3, 4), "f4"), compression="gzip"), "not one contiguous block"),
    "chunks": (replace(KERNEL, data=np.ones((3, 3, 3, 4), "f4"), chunks=(1, 3, 3, 4)), "not one contiguous block"),
    "float64": (replace(KERNEL, data=np.ones((3, 3, 3, 4))), "is float64; expected"),
    "texts": (replace(KERNEL, data=["x"] * 9, dtype=h5py.string_dtype()), "is object; expected"),
    "references": (replace(KERNEL, shape=(3, 3, 3, 4), dtype=h5py.ref_dtype), "expected one contiguous|is object"),
    "another shape": (replace(KERNEL, data=np.ones((3, 3, 3, 8), "f4")), r"\(3, 3, 3, 8\); expected \(3, 3, 3, 4\)"),
    "a dataset more": (lambda file: file.create_dataset("run/more", data=1), "run/more' is not expected"),
    "a dataset less": (lambda file: file.pop(KERNEL), "kernel is missing"),
    "a group for a dataset": (lambda file: (file.pop(KERNEL), file.create_group(KERNEL)), "kernel is a group"),
    "a dataset for a group": (replace("run/optimizer", data=1), "run/optimizer is a dataset"),
    "many metrics": (
        lambda file: [file.create_dataset(f"run/metrics/{n}", data=np.float32(0)) for n in range(40)],
        "is not expected there",
    ),
    "another slot": (lambda file: file.create_dataset("run/optimizer/evil", data=1), "evil' is not expected"),
    "a slot less": (lambda file: file.pop("run/optimizer/4"), "run/optimizer/4 is missing"),
    "momentum of another shape": (replace("run/optimizer/4", data=np.ones((3, 3, 3, 8), "f4")), "has shape"),
    "momentum of another type": (replace("run/optimizer/4", data=np.ones((3, 3, 3, 4))), "is float64; expected"),
    "a manifest of another shape": (slot(shape=[3, 3, 3, 8]), "which is no trainable weight's"),
    "a manifest of another type": (slot(dtype="object"), "is 'object'; expected one of float32"),
    "a manifest of terabytes": (slot(shape=[1 << 40]), "which is no trainable weight's"),
    "a manifest of negative size": (slot(shape=[-1]), r"has shape \[-1\]; expected up to 8 numbers of at least 1"),
    "a manifest of true size": (slot(shape=[True]), r"has shape \[True\]; expected"),
    "a manifest of many axes": (slot(shape=[1] * 1000), "expected up to 8 numbers of at least 1"),
    "a name twice": (slot(name="iteration"), "has the name 'iteration' twice"),
    "an escape in a name": (slot(name="\x1b[2J"), "expected a printable text"),
    "a name of numbers": (slot(name=[1]), "expected a printable text"),
    "a manifest more": (optimizer(lambda content: content["arrays"].append(
        {"name": "evil", "shape": [], "dtype": "int64"})), "run/optimizer/.* is missing"),
    "a million slots": (optimizer(lambda content: content.update(arrays=[[]] * 200_000)), "has \\[\\]; expected name"),
    "more slots than an optimizer has": (optimizer(lambda content: content["arrays"].extend(
        {"name": f"m{number}", "shape": [3, 3, 3, 4], "dtype": "float32"} for number in range(4))),
        r"has 5 arrays of shape \(3, 3, 3, 4\); a checkpoint holds at most 4 for"),
    "a manifest that is a number": (optimizer(lambda content: content.update(arrays=1)), "optimizer is not a list"),
    "an optimizer of text": (state(lambda content: content.update(optimizer="sgd")), "has no class_name"),
    "a class_name of numbers": (optimizer(lambda content: content.update(class_name=[1])), "class_name is no text"),
    "a config of text": (optimizer(lambda content: content.update(config="x")), "config is no object"),
    "a million metrics": (metrics(100_000), "the metrics hold 100,000 numbers in 100,000 arrays; expected at most"),
    "a metric of a million numbers": (metrics(1, (1 << 20,)), "the metrics hold 1,048,576 numbers in 1 arrays"),
    "metrics of text": (state(lambda content: content.update(metrics="x")), "manifest of the metrics is not a list"),
    "a callback of a megabyte": (state(lambda content: content.update(callbacks={"x": "a" * (1 << 20)})), "1,048,578"),
    "callbacks of numbers": (state(lambda content: content.update(callbacks=[1])), "its callbacks are no object"),
    "a normalization of another shape": (
        state(lambda content: content.update(normalization=[1 << 30])), "expected \\[32, 32, 3\\] or \\[3\\]"
    ),
    "no normalization": (lambda file: file.pop("run/normalization"), "run/normalization is missing"),
    "a normalization that is another": (replace("run/normalization", data=np.ones((64, 64, 3), "f4")), "has shape"),
    "a future format": (state(lambda content: content.update(format=3)), "is of format 3; this version reads 1 and 2"),
    "a format that is none": (state(lambda content: content.update(format=[])), "it is of format \\[\\]"),
    "endless seconds": (state(lambda content: content.update(seconds=1e300)), "its seconds are 1e"),
    "an average that is a number": (state(lambda content: content.update(averaged=1)), "neither true nor false"),
    "a thousand curves": (
        state(lambda content: content["history"].update({f"m{number}": [] for number in range(1000)})), "1007 curves"
    ),
    "an escape in a curve": (state(lambda content: content["history"].update({"\x1b[2J": []})), "which no metric"),
    "a curve that is a number": (state(lambda content: content["history"].update(loss=1)), "loss is not a list"),
    "a precision that is none": (run(precision="float8"), "run has precision .* which is not possible"),
    "a sitting that is none": (run(sittings=[{"evil": 1}]), "run has sittings .* which is not possible"),
    "a sitting of nothing": (run(sittings=[{}]), "run has sittings .* which is not possible"),
    "no state": (lambda file: file.pop("run/state"), "run/state is missing"),
    "state of text": (state(lambda content: "hello"), "not a checkpoint of this project"),
    "state of numbers": (state(lambda content: "[1, 2]"), "its state is not that of a run"),
    "deep state": (state(lambda content: "[" * 100_000), "nested too deeply"),
    "infinite state": (state(lambda content: '{"epoch": Infinity}'), "no finite number"),
    "key twice": (state(lambda content: '{"epoch": 1, "epoch": 2}'), "names a key twice"),
    "digits": (state(lambda content: '{"epoch": ' + "9" * 5000 + "}"), "a number has 5000 digits"),
    "negative height": (network(height=-1), "height is -1; expected a whole number from 1"),
    "giant width": (network(width=1 << 40), "width is 1099511627776; expected"),
    "true classes": (network(classes=True), "classes is True; expected"),
    "giant filters": (network(filters=[1 << 17] * 3), "filters is .*; expected whole numbers from 1 to"),
    "too many weights": (network(filters=[1 << 16] * 3), "weights in all; expected at most"),
    "too many modules": (network(stages=[1000, 1000]), "modules in all"),
    "no stages": (network(stages=[]), "stages is"),
    "text for filters": (network(filters="4,8"), "filters is '4,8'"),
    "another stem": (network(dataset="../../etc"), "dataset is '../../etc'; expected one of"),
    "NaN reg": (network(reg="x"), "reg is 'x'; expected"),
    "an argument more": (network(evil=1), "unexpected keyword argument 'evil'"),
    "an argument less": (state(lambda content: content["network"].pop("height") and None), "'height'"),
    "lambda layer": (config(lambda_layer), "other layers than its network"),
    "nested lambda": (config(nested_lambda), "model_config names 'Lambda'"),
    "foreign module": (config(foreign_module), "model_config names"),
    "no config": (lambda file: file.attrs.pop("model_config"), "does not have exactly the attributes"),
    "one attribute more": (
        lambda file: file.attrs.create("training_config", '{"class_name": "__lambda__"}'),
        "does not have exactly the attributes",
    ),
    "two names for one dataset": (shared, "shares its bytes with another dataset"),
    "an option with an escape": (options(output="\x1b[2J"), "its options are not such as a run has"),
    "a surrogate": (arguments(data="\ud800x"), "run has arguments .* which is not possible"),
    "a million empty lists": (options(x=[[]] * 600_000), "values; expected at"),
    "no rates": (state(lambda content: content["history"].update(learning_rate=[])), "0 epochs of learning_rate and 1"),
    "a loss that can't be drawn": (state(lambda content: content["history"].update(loss=[1e308])), "can be drawn"),
    "metrics between epochs": (lambda file: file.create_dataset("run/metrics/0", data=np.float32(0)), "not expected"),
    "no metrics inside an epoch": (state(lambda content: content.update(batch=2)), "run/metrics is missing"),
    "config of numbers": (lambda file: file.attrs.create("model_config", np.ones(3)), "is not one value"),
    "long config": (lambda file: file.attrs.create("model_config", "x" * (1 << 25)), "claims 33,554,432"),
    "escape in a class": (run(classes=["\x1b[2J"] * 10), "run has classes .* which is not possible"),
    "escape in the script": (run(script="../../evil"), "run has script .* which is not possible"),
    "data is no digest": (run(data="/etc/passwd"), "run has data .* which is not possible"),
    "a rate of nothing": (run(learning_rate_changes=[[1, 0, 0]]), "has learning_rate_changes .* not possible"),
    "a hundred thousand rates": (run(learning_rate_changes=[[1, 0, 0.1]] * 100_000), "has learning_rate_changes"),
    "curves differ": (state(lambda content: content["history"]["loss"].append(1.0)), "epochs of"),
    "raw weights of a run that averages none": (
        lambda file: file.create_dataset("run/raw/conv1/kernel", data=1), "run/raw' is not expected"
    ),
    "averages without raw weights": (averaged(lambda file: file.pop("run/raw")), "run/raw is missing"),
    "raw weights of another shape": (
        averaged(replace("run/raw/conv1/kernel", data=np.ones((3, 3, 3, 8), "f4"))), r"\(3, 3, 3, 8\); expected"
    ),
    "a raw weight more": (averaged(lambda file: file.create_dataset("run/raw/evil", data=1)), "evil' is not expected"),
    "negative epoch": (state(lambda content: content.update(epoch=-1)), "contradicts itself"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_stranger_s_checkpoint_is_refused_by_the_check_that_is_meant(good, name):
    change, message = HOSTILE[name]
    forge(good, change)
    with pytest.raises(ValueError, match=message) as error:
        read_checkpoint(good)
    assert "epoch_1.hdf5" in str(error.value)
    assert "\n" not in str(error.value)


# Sound files, which evaluate, and no run can go on from.
NOT_RESUMED = {
    "an option that no flag can be": (options(workers=1 << 40), "--workers can't be"),
    "a rate as text": (arguments(lr="0.1"), "--lr can't be"),
    "a list of rates": (arguments(lr=[1]), "--lr can't be"),
    "a recipe that is a list": (arguments(recipe=["x"]), "--recipe can't be"),
    "a flip that is none": (arguments(flip="sideways"), "--flip can't be: 'sideways' is not none, random or alternate"),
    "an alpha beyond bounds": (arguments(mixup=1e300), "--mixup can't be"),
    "a flag of another version": (arguments(depth=9), "has --'depth', which this version doesn't know"),
    "a value less": (
        state(lambda content: content["history"]["run"]["arguments"].pop("epochs") and None), "lacks the values of epo"
    ),
    "averages that the run keeps none of": (averaged(), "holds averaged weights; expected the same of the run"),
    "another optimizer": (optimizer(lambda content: content.update(class_name="Adam")), "was trained with 'Adam'"),
    "a value that this optimizer has not": (
        optimizer(lambda content: content["config"].update(x=1)), "with 'x' 1 of WarmupSGD, and now it is None"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_RESUMED)
def test_a_sound_file_of_no_run_of_this_version_is_not_gone_on_with(command, good, name):
    change, message = NOT_RESUMED[name]
    forge(good, change)
    read_checkpoint(good)
    done = command("resnet_cifar10.py", "--model", good, "--epochs", "2", code=2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_value_of_the_optimizer_that_one_version_of_keras_lacks_is_off(command, good):
    forge(good, optimizer(lambda content: (content["config"].update(x=None), content["config"].pop("clipnorm"))[0]))
    assert "epoch 2/2" in command("resnet_cifar10.py", "--model", good, "--epochs", "2").stdout


def test_arguments_that_this_version_does_not_know_do_not_matter_to_an_evaluation(command, good):
    forge(good, arguments(depth=9, output_stride="x", limit=None))
    assert "images: 360\n" in command("rank_accuracy.py", "--model", good).stdout
    forge(good, arguments(batch_size="x"))
    assert "--batch_size can't be" in command("rank_accuracy.py", "--model", good, code=2).stderr


def test_a_configuration_that_claims_to_be_giant_takes_no_memory(good):
    content = bytearray(good.read_bytes())
    name = content.index(b"model_config\0")
    place = content.index(struct.pack("<I", len(h5py.File(good).attrs["model_config"])), name)
    content[place : place + 4] = b"\xff" * 4
    good.write_bytes(content)
    reseal(good)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="model_config of / claims 4,294,967,295 bytes; expected at most"):
        read_checkpoint(good)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100e3


def test_a_checkpoint_whose_flags_say_another_network_builds_none(command, good):
    forge(good, arguments(stages=[55], filters=[4, 2048]))
    done = command("resnet_cifar10.py", "--model", good, "--epochs", "2", code=2)
    assert "is of another network than its --stages says" in done.stderr


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
    assert "has --recipe 'best'; there is no such recipe" in done.stderr


def test_a_valid_digest_over_no_hdf5_is_refused(good):
    content = good.read_bytes()
    for rest in (b"", b"hello", content[512:2000], bytes(5000), content[512:] * 2):
        good.write_bytes(content[:512] + rest)
        reseal(good)
        if rest == content[512:] * 2:
            continue  # what follows a whole file, HDF5 does not look at
        with pytest.raises(ValueError, match=r"epoch_1\.hdf5 is damaged"):
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
    for number, (change, _) in enumerate(HOSTILE.values()):
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
    assert done.stderr.count("\n") == 1
    assert "height is -1" in done.stderr
    # The newest by its first bytes, but no checkpoint of this project.
    content = bytearray(bad.read_bytes())
    content[56] = 2
    bad.write_bytes(content)
    done = command("resnet_cifar10.py", "--model", "latest", "--epochs", "2")
    assert "height is -1" in done.stdout + done.stderr
    assert "epoch 2" in done.stdout


def test_it_takes_no_more_than_a_file_may_hold(good):
    """A sparse file with a valid digest: its size alone is no reason to take memory."""
    with h5py.File(good, "r+") as file:
        file.attrs["model_config"] = "x"
    os.truncate(good, 600 << 20)
    reseal(good)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="far more than its arrays"):
        read_checkpoint(good)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300e3
