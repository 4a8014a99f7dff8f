"""Building the Tiny ImageNet data files."""

import contextlib
import json
import multiprocessing
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from conftest import ROOT
from messages import (
    EXISTS,
    MISSING,
    assert_names,
    assert_refused,
    naming,
)
from sklearn.model_selection import train_test_split
from tinylayout import IDS, SMALL, TRAIN_PER_CLASS, VAL_PER_CLASS

from config import tiny_imagenet_config as config
from pipeline.io import HDF5DatasetGenerator
from pipeline.io.imagereader import ImageReader


def contents(root):
    """Return the images of each split with their class ids, and the mean."""
    splits = {}
    for split in ("train", "val", "test"):
        with h5py.File(root / "hdf5" / f"{split}.hdf5") as file:
            names = [name.decode() for name in file["label_names"]]
            splits[split] = (file["images"][()], [names[label] for label in file["labels"]])
            assert names == sorted(IDS)
            assert [word.decode() for word in file["words"]] == ["ant", "bee, wasp", "cow"]
    return splits, json.loads((root / "hdf5" / "mean.json").read_text())


def test_the_build_splits_by_class_and_keeps_every_image_once(built):
    splits, mean = contents(built)
    train_images, train_ids = splits["train"]
    assert Counter(train_ids) == dict.fromkeys(IDS, TRAIN_PER_CLASS - config.TEST_IMAGES_PER_CLASS)
    assert Counter(splits["test"][1]) == dict.fromkeys(IDS, config.TEST_IMAGES_PER_CLASS)
    assert Counter(splits["val"][1]) == dict.fromkeys(IDS, VAL_PER_CLASS)
    # BGR, as OpenCV reads them.
    expected = train_images.mean(axis=(0, 1, 2))
    np.testing.assert_allclose([mean[channel] for channel in "BGR"], expected)

    def pixels(*patterns):
        return Counter(
            (cv2.imread(str(path)).tobytes(), path.parts[-3] if "train" in patterns[0] else None)
            for pattern in patterns
            for path in built.glob(pattern)
        )

    from_train = Counter(
        (image.tobytes(), wordnet_id)
        for split in ("train", "test")
        for image, wordnet_id in zip(*splits[split], strict=True)
    )
    assert from_train == pixels("train/*/images/*.JPEG")
    assert Counter((image.tobytes(), None) for image in splits["val"][0]) == pixels("val/images/*.JPEG")
    id_of = dict(line.split("\t")[:2] for line in (built / "val" / "val_annotations.txt").read_text().splitlines())
    order = {path.name: cv2.imread(str(path)).tobytes() for path in built.glob("val/images/*.JPEG")}
    for image, wordnet_id in zip(*splits["val"], strict=True):
        assert wordnet_id in {id_of[name] for name, content in order.items() if content == image.tobytes()}


def test_building_twice_gives_the_same_bytes_and_needs_leave(command, raw, built):
    command("build_tiny_imagenet.py", "--data", raw)
    names = ("train.hdf5", "val.hdf5", "test.hdf5", "mean.json")
    for name in names:
        assert (raw / "hdf5" / name).read_bytes() == (built / "hdf5" / name).read_bytes()
    done = command("build_tiny_imagenet.py", "--data", raw, code=2)
    assert_refused(done, "train.hdf5", EXISTS, "--overwrite")
    (raw / "hdf5" / "train.hdf5").write_bytes(b"old")
    done = command("build_tiny_imagenet.py", "--data", raw, "--overwrite")
    assert_names(done.stdout, r"train\.hdf5.*\b36\b.*\b3\b")
    assert (raw / "hdf5" / "train.hdf5").read_bytes() == (built / "hdf5" / "train.hdf5").read_bytes()
    assert sorted(path.name for path in (raw / "hdf5").iterdir()) == sorted((*names, ".lock"))


def test_classes_of_the_same_size_are_split_as_scikit_learn_does_it(built):
    paths = sorted(str(path) for path in built.glob("train/*/images/*.JPEG"))
    labels = [path.split("/")[-3] for path in paths]
    train, test = train_test_split(
        paths, test_size=3 * config.TEST_IMAGES_PER_CLASS, stratify=labels, random_state=config.SPLIT_SEED
    )
    for split, chosen in (("train", train), ("test", test)):
        images, _ = contents(built)[0][split]
        np.testing.assert_array_equal(images, [cv2.imread(path) for path in chosen])


def test_classes_of_other_sizes_give_as_many_test_images_where_they_have_them_and_a_tenth_where_not(command, raw):
    for wordnet_id, left in (("n01", TRAIN_PER_CLASS - 3), ("n02", 42), ("n03", 50)):
        for image in sorted((raw / "train" / wordnet_id / "images").iterdir())[left:]:
            image.unlink()
    done = command("build_tiny_imagenet.py", "--data", raw)
    splits, _ = contents(raw)
    assert Counter(splits["test"][1]) == {"n01": 50, "n02": 4, "n03": 5}
    assert Counter(splits["train"][1]) == {"n01": 9, "n02": 38, "n03": 45}
    assert_names(done.stdout, r"\b50\b.*\b2\b.*\b4\b.*\b42\b.*\bn02\b")


def test_a_build_from_a_folder_that_can_only_be_read_writes_elsewhere(command, raw, built, monkeypatch, tmp_path):
    before = sorted(raw.rglob("*"))
    command("build_tiny_imagenet.py", "--data", raw, "--output", "elsewhere")
    assert sorted(raw.rglob("*")) == before
    for name in ("train.hdf5", "val.hdf5", "test.hdf5", "mean.json"):
        assert (tmp_path / "elsewhere" / name).read_bytes() == (built / "hdf5" / name).read_bytes()
    command("train.py", "--data", "elsewhere", *SMALL, "--epochs", "1")
    done = command("rank_accuracy.py", "--data", "elsewhere", "--model", "output/train/checkpoints/epoch_1.hdf5")
    assert f"images: {3 * config.TEST_IMAGES_PER_CLASS}" in done.stdout


def test_the_environment_names_the_folder(command, raw, monkeypatch):
    monkeypatch.setenv("TINY_IMAGENET_DIR", str(raw))
    command("build_tiny_imagenet.py")
    assert (raw / "hdf5" / "mean.json").exists()


def test_a_gray_image_has_three_equal_channels(command, raw):
    gray = next((raw / "train" / "n01" / "images").iterdir())
    cv2.imwrite(str(gray), np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    command("build_tiny_imagenet.py", "--data", raw)
    splits, _ = contents(raw)
    same = [np.all(image == image[..., :1]) for split in ("train", "test") for image in splits[split][0]]
    assert sum(same) == 1


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (met := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return met


def processes_of(session):
    """Return the processes that are left in a session."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(status.read_text().rpartition(")")[2].split()[3]) == session:
                found.append(status.parent.name)
    return found


def test_a_build_that_was_killed_leaves_nothing_that_counts(command, started, raw):
    script = ROOT / "build_tiny_imagenet.py"
    build = started("tests/faults.py", "pause", "2", script, "--data", raw, start_new_session=True)
    wait_until(lambda: list(raw.glob("hdf5/build.*.tmp/train.hdf5.*.tmp")))
    assert list(raw.glob("hdf5/build.*.tmp/val.hdf5"))
    done = command("build_tiny_imagenet.py", "--data", raw, code=2)
    assert_refused(done, "hdf5", rf"\b{build.pid}\b")
    build.send_signal(signal.SIGKILL)
    build.wait()
    wait_until(lambda: not processes_of(build.pid))
    assert not [path for path in (raw / "hdf5").iterdir() if path.suffix in (".hdf5", ".json")]
    done = command("train.py", "--data", raw, *SMALL, code=2)
    assert_refused(done, "train.hdf5", MISSING)
    # The next build removes unfinished files.
    command("build_tiny_imagenet.py", "--data", raw)
    assert not list(raw.glob("hdf5/*.tmp"))


def test_images_come_in_order_from_any_number_of_processes(layout):
    paths = [str(path) for path in layout.glob("train/*/images/*.JPEG")]
    for processes in (1, 3):
        with ImageReader((64, 64), processes) as reader:
            for chosen in (paths, paths[:5], paths[64:128], []):
                images = [image.copy() for images in reader.read(chosen) for image in images]
                assert len(images) == len(chosen)
                for image, path in zip(images, chosen, strict=True):
                    np.testing.assert_array_equal(image, cv2.imread(path))


def test_a_decoder_that_died_is_reported(layout):
    paths = [str(path) for path in layout.glob("train/*/images/*.JPEG")]
    with ImageReader((64, 64), 1) as reader:
        list(reader.read(paths[:3]))
        for child in multiprocessing.active_children():
            child.kill()
            child.join()
        with pytest.raises(OSError, match=naming("process", "images")):
            list(reader.read(paths))


def test_the_build_needs_no_keras(raw):
    code = f"""
import sys
sys.modules.update(tensorflow=None, keras=None, jax=None)
sys.argv = ["build_tiny_imagenet.py", "--data", {str(raw)!r}]
import runpy
runpy.run_path("build_tiny_imagenet.py", run_name="__main__")
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    assert HDF5DatasetGenerator(raw / "hdf5" / "val.hdf5", 4).num_images == 15
