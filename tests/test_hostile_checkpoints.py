"""A stranger's checkpoints with valid digests, each refused by the check meant for it."""

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise

import h5py
import numpy as np
import pytest
from changes import (
    KERNEL,
    arguments,
    averaged,
    config,
    external,
    foreign_module,
    lambda_layer,
    link,
    metrics,
    nested_lambda,
    network,
    optimizer,
    options,
    replace,
    run,
    shared,
    slot,
    state,
    virtual,
)
from conftest import ROOT
from forge import forge, reseal
from messages import MISSING, NOT_CONTIGUOUS, REPEATED, UNEXPECTED, naming

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.files.hdf5 import _around

SLOT = "conv1_kernel_momentum"
# Each change, and what the error message names.
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
        replace(KERNEL, shape=(3, 3, 3, 4), dtype=h5py.ref_dtype), "conv1/kernel", r"\bobject\b|reference"
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
        optimizer(lambda content: content.update(config="x")), "optimizer", r"\bconfig\b", r"\bobject\b|\bdict|mapping"
    ),
    "a million metrics": (metrics(100_000), "metrics", "100,000", "65,536"),
    "a metric of a million numbers": (metrics(1, (1 << 20,)), "metrics", "1,048,576", "65,536"),
    "metrics of text": (state(lambda content: content.update(metrics="x")), "metrics", "list"),
    "a callback of a megabyte": (
        state(lambda content: content.update(callbacks={"x": "a" * (1 << 20)})), "1,048,578", "65,536"
    ),
    "callbacks of numbers": (
        state(lambda content: content.update(callbacks=[1])), "callbacks", r"\bobject\b|\bdict|mapping"
    ),
    "a normalization of another shape": (
        state(lambda content: content.update(normalization=[1 << 30])), r"\[1073741824\]", r"\[32, 32, 3\]", r"\[3\]"
    ),
    "a deviation of two channels": (
        state(lambda content: content.update(normalization=[2, 2])), r"\[2, 2\]", r"\[2, 3\]"
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
    "state of numbers": (
        state(lambda content: "[1, 2]"), r"(?<!run/)\bstate\b", r"\brun\b(?!/)|\bobject\b|\bdict|mapping"
    ),
    "deep state": (state(lambda content: "[" * 100_000), "nest|deep|recurs"),
    "infinite state": (state(lambda content: '{"epoch": Infinity}'), "Infinity"),
    "key twice": (state(lambda content: '{"epoch": 1, "epoch": 2}'), r"\bkey\b", REPEATED),
    "digits": (state(lambda content: '{"epoch": ' + "9" * 5000 + "}"), r"\b5,?000\b"),
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
    "an argument more": (network(evil=1), "argument|ResNet.build", "'evil'"),
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
    "a million empty lists": (options(x=[[]] * 600_000), r"1,200,\d{3}", "524,288"),
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
        state(lambda content: content.update(epoch=-1)), r"epoch\D{0,20}-1\b"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_stranger_s_checkpoint_is_refused_by_the_check_that_is_meant(good, name):
    change, *parts = HOSTILE[name]
    forge(good, change)
    with pytest.raises(ValueError, match=naming("epoch_1.hdf5", *parts)) as error:
        read_checkpoint(good)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("end", [b"\1\0" + b"\xff" * 6 + b"model_config\0", b"model_config\0"])
def test_what_looks_like_an_attribute_that_is_cut_off_is_refused(good, end):
    good.write_bytes(good.read_bytes() + bytes(8) + end)
    reseal(good)
    with pytest.raises(ValueError, match=naming("epoch_1.hdf5", "model_config")):
        read_checkpoint(good)


def test_a_pattern_is_found_however_the_content_is_cut_into_blocks():
    rng = np.random.default_rng(0)
    content = bytes(rng.integers(97, 99, 600, np.uint8))
    padded, starts = bytes(3) + content, [place for place in range(600) if content.startswith(b"abba", place)]
    expected = [padded[place : place + 3 + 20] for place in starts]
    for _ in range(50):
        cuts = [0, *sorted(rng.integers(0, 600, rng.integers(0, 40))), 600]
        blocks = [content[start:end] for start, end in pairwise(cuts)]
        assert list(_around(b"abba", blocks, before=3, after=20)) == expected


def peak_memory(*words):
    """Return the peak memory in MB and the output of a process."""
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
