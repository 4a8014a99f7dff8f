"""A stranger's checkpoints: sound ones that can't be resumed, good ones, and costly ones."""

import os
import resource
import shutil
import struct

import h5py
import pytest
from changes import arguments, averaged, network, optimizer, options, state
from forge import forge, reseal
from messages import MISSING, assert_names, assert_refused, naming

from pipeline.checkpoints.checkpoint import read_checkpoint

# Sound files that can be evaluated, but not resumed.
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
            continue  # HDF5 ignores bytes after the file
        with pytest.raises(ValueError, match=naming("epoch_1.hdf5", "signature|truncated")):
            read_checkpoint(good)


def test_a_script_refuses_one_in_a_line_and_goes_on_from_the_good_one_before_it(command, good_run, tmp_path):
    shutil.copytree(good_run / "output", tmp_path / "output")
    bad = shutil.copy(
        tmp_path / "output/resnet_cifar10/checkpoints/epoch_1.hdf5",
        tmp_path / "output/resnet_cifar10/checkpoints/epoch_2.hdf5",
    )
    forge(bad, network(height=-1))
    done = command("resnet_cifar10.py", "--model", bad, "--epochs", "2", code=2)
    assert_refused(done, "epoch_2.hdf5", "height", r"\B-1\b")
    # The newest by its seal, but not a checkpoint of this project.
    content = bytearray(bad.read_bytes())
    content[56] = 2
    bad.write_bytes(content)
    done = command("resnet_cifar10.py", "--model", "latest", "--epochs", "2")
    assert_names(done.stdout + done.stderr, "epoch_2.hdf5", "height", r"\B-1\b")
    assert "epoch 2" in done.stdout


def test_it_takes_no_more_than_a_file_may_hold(good):
    """Reading a huge sparse file with a valid digest takes no more memory."""
    with h5py.File(good, "r+") as file:
        file.attrs["model_config"] = "x"
    os.truncate(good, 600 << 20)
    reseal(good)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=naming("epoch_1.hdf5", "629,145,088", "arrays")):
        read_checkpoint(good)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300e3
