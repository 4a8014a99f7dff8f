"""`python -m pipeline.verify` on sound and broken files, and wrong calls."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile

import cv2
import numpy as np
import pytest
from conftest import CHECKPOINTS, ROOT
from messages import NOT_REGULAR, TRUNCATED, assert_names, assert_refused

from pipeline.data.textfiles import write_mean
from pipeline.io import HDF5DatasetWriter


@pytest.fixture
def output(straight, tmp_path):
    """Return the files of a run of two epochs, in their default folders."""
    checkpoints = tmp_path / CHECKPOINTS
    checkpoints.mkdir(parents=True)
    for path in straight().glob("*.*"):
        shutil.copy(path, checkpoints if path.suffix == ".hdf5" else tmp_path / "output")
    return tmp_path / "output"


@pytest.fixture
def data(tmp_path):
    with HDF5DatasetWriter((20, 8, 8, 3), tmp_path / "data" / "train.hdf5") as writer:
        writer.store_class_labels(["n01", "n02"])
        writer.add(np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8), np.arange(20) % 2)
    write_mean(tmp_path / "data" / "mean.json", {"R": 1.0, "G": 2.0, "B": 3.0})
    return tmp_path / "data"


@pytest.fixture
def photos(tmp_path):
    for number in range(5):
        path = tmp_path / "photos" / "ant" / f"{number}.{'png' if number % 2 else 'JPEG'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.random.default_rng(number).integers(0, 256, (16, 20, 3), np.uint8))
    return tmp_path / "photos"


def verify(*paths, code=0):
    words = [sys.executable, "-m", "pipeline.verify", *map(str, paths)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_sound_files_get_a_line_each(output, data, photos):
    done = verify(output, data, photos)
    lines = [line.replace(str(output.parent), "") for line in done.stdout.splitlines()]
    expected = (
        ("sound: /output/resnet_cifar10/checkpoints/epoch_1.hdf5: ", r"epoch 1\b", "resnet_cifar10, ", "10 classes"),
        ("sound: /output/resnet_cifar10/checkpoints/epoch_2.hdf5: ", r"epoch 2\b", "resnet_cifar10, ", "10 classes"),
        ("sound: /output/resnet_cifar10.json: ", "2 epochs", "resnet_cifar10"),
        ("sound: /output: ", "1 image"),  # the plot
        ("sound: /data/mean.json: ", r"R 1\.00, G 2\.00, B 3\.00"),
        ("sound: /data/train.hdf5: ", "20 images", "8x8x3", "2 classes"),
        ("sound: /photos: ", "5 images", "20x16"),
    )
    for line, parts in zip(lines, expected, strict=True):
        assert_names(line, *parts)
    assert done.stderr == ""


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_each_broken_file_is_named_and_the_others_are_still_checked(output, data, photos):
    flip(output / "resnet_cifar10" / "checkpoints" / "epoch_1.hdf5", 9000)
    # Inside an image, which opening the file doesn't read.
    flip(data / "train.hdf5", (data / "train.hdf5").stat().st_size // 2)
    (output / "resnet_cifar10.json").write_text("{")
    photo = photos / "ant" / "0.JPEG"
    photo.write_bytes(photo.read_bytes()[:-2])
    done = verify(output, data, photos, "--json", code=1)
    found = {
        finding["path"]: finding
        for finding in map(json.loads, done.stdout.splitlines())
        if finding["path"] != str(photos)
    }
    broken = {
        path.replace(str(output.parent), ""): finding["about"]
        for path, finding in found.items()
        if not finding["sound"]
    }
    assert broken.keys() == {
        "/output/resnet_cifar10/checkpoints/epoch_1.hdf5",
        "/output/resnet_cifar10.json",
        "/data/train.hdf5",
        "/photos/ant/0.JPEG",
    }
    assert_names(broken["/output/resnet_cifar10/checkpoints/epoch_1.hdf5"], "digest|SHA-256")
    assert_names(broken["/data/train.hdf5"], "digest|SHA-256", "images")
    assert_names(broken["/photos/ant/0.JPEG"], TRUNCATED)
    assert found[str(output / "resnet_cifar10" / "checkpoints" / "epoch_2.hdf5")]["sound"]
    assert_names(done.stdout, r'"about": "1 of 5\b')


def test_what_can_not_be_checked_is_not_sound(tmp_path):
    (tmp_path / "other.hdf5").write_bytes(b"hello")
    os.mkfifo(tmp_path / "pipe.hdf5")
    (tmp_path / "\x1b[31mred.hdf5").write_bytes(b"")
    done = verify(tmp_path, code=1)
    assert done.stdout.count("NOT SOUND") == 3
    assert "\x1b" not in done.stdout
    assert_names(done.stdout, rf"pipe\.hdf5.*({NOT_REGULAR})")


def test_endings_are_taken_in_any_case_and_a_history_that_lost_a_part_is_seen(output):
    (output / "A.HDF5").write_bytes(b"x" * 100)
    history = json.loads((output / "resnet_cifar10.json").read_text())
    del history["run"]
    (output / "resnet_cifar10.json").write_text(json.dumps(history))
    done = verify(output, code=1)
    assert done.stdout.count("NOT SOUND") == 2


def test_archives_of_cifar10_are_read_and_others_in_a_folder_passed_over(output, tmp_path):
    (output / "run.log.gz").write_bytes(b"a log")
    assert "log" not in verify(output).stdout
    done = verify(output / "run.log.gz", code=1)
    assert "NOT SOUND" in done.stdout
    assert_names(done.stdout, r"run\.log\.gz.*CIFAR-10")
    labels, pixels = b"\1", bytes(3072)
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz", compresslevel=1) as archive:
        for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = 10_000 * 3073
            archive.addfile(info, io.BytesIO((labels + pixels) * 10_000))
    done = verify(tmp_path / "cifar-10-binary.tar.gz")
    assert_names(done.stdout, r"\bcifar10\b", "50,000", "10,000", "32x32x3", r"\b[0-9a-f]{16,}")


def test_a_wrong_call_is_one_line(tmp_path):
    for arguments, part in (((), "PATH"), ((tmp_path / "no",), f"{tmp_path}/no"), ((tmp_path,), rf"{tmp_path}\b(?!/)")):
        assert_refused(verify(*arguments, code=2), part)


def test_it_loads_no_network_library(output, data, photos):
    code = (
        "import sys; sys.modules.update(tensorflow=None, keras=None, jax=None, matplotlib=None, sklearn=None);"
        f"sys.argv = ['verify', {str(output)!r}, {str(data)!r}, {str(photos)!r}];"
        "import runpy; runpy.run_module('pipeline.verify', run_name='__main__')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
