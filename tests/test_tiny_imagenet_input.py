"""Broken and unexpected images and data files of Tiny ImageNet."""

import shutil

import cv2
import h5py
import numpy as np
import pytest
from forge import forge
from messages import (
    MISSING,
    NOT_AN_IMAGE,
    REPEATED,
    TRUNCATED,
    assert_refused,
)
from tinylayout import SMALL

from pipeline.data.textfiles import read_mean, write_mean
from pipeline.io import HDF5DatasetWriter


def image_of(root, *parts):
    return sorted((root.joinpath(*parts)).iterdir())[3]


def spoil(place, change):
    """Return a function that applies a change to the file at `place`."""
    return lambda root: place(root).write_bytes(change(place(root).read_bytes()))


def resized(jpeg, size):
    """Return a JPEG whose header claims `size` x `size` pixels."""
    frame = jpeg.index(b"\xff\xc0")
    return jpeg[: frame + 5] + size.to_bytes(2, "big") * 2 + jpeg[frame + 9 :]


def in_train(root):
    return image_of(root, "train", "n02", "images")


def in_val(root):
    return image_of(root, "val", "images")


@pytest.mark.parametrize(
    ("break_it", "parts"),
    [
        (lambda root: shutil.rmtree(root), [r"/tiny\b(?!/)", MISSING, "--download"]),
        (lambda root: (root / "wnids.txt").unlink(), ["wnids.txt", "No such file"]),
        (lambda root: shutil.rmtree(root / "train"), [r"/train\b(?!/)", MISSING]),
        (lambda root: shutil.rmtree(root / "val" / "images"), ["folder|directory", r"val/images\b(?!/)", MISSING]),
        (lambda root: shutil.rmtree(root / "train" / "n02" / "images"), [r"train/n02\b(?!/)", "no images?|empty"]),
        (lambda root: (root / "words.txt").unlink(), ["words.txt", "No such file"]),
        (lambda root: (root / "words.txt").write_text("n01\tant\nn02\tbee\n"), ["words.txt", r"\bn03\b"]),
        (lambda root: (root / "words.txt").write_bytes(b"n01\t\xff\n"), ["words.txt", r"\btext\b|UTF-8|decode"]),
        (lambda root: (root / "wnids.txt").write_text("n01\nn02\n"), ["n03_0.JPEG", "'n03'"]),
        (lambda root: (root / "wnids.txt").write_text(""), ["wnids.txt", "empty"]),
        (lambda root: (root / "wnids.txt").write_text("n01\nn02\nn03\nn01\n"), ["wnids.txt", REPEATED]),
        (lambda root: (root / "wnids.txt").write_text("n01\n../n02\n"), ["wnids.txt", r"\b2\b", "'../n02'"]),
        (lambda root: (root / "val" / "val_annotations.txt").unlink(), ["val_annotations.txt", "No such file"]),
        (lambda root: in_val(root).rename(root / "val" / "images" / "new.JPEG"), ["new.JPEG", "val_annotations.txt"]),
        (lambda root: in_val(root).unlink(), ["val_annotations.txt", "'val_11.JPEG'"]),
        (
            spoil(lambda root: root / "val" / "val_annotations.txt", lambda text: text.replace(b"n02", b"n09")),
            ["val_annotations.txt", r"\b11\b", "'n09'", "'val_2.JPEG'"],
        ),
        (
            spoil(lambda root: root / "val" / "val_annotations.txt", lambda text: text + b"val_0.JPEG\tn01\n"),
            ["val_annotations.txt", r"\b16\b", "'val_0.JPEG'", REPEATED],
        ),
        (spoil(in_train, lambda content: content[:-9]), ["n02_11.JPEG", TRUNCATED]),
        (spoil(in_train, lambda content: content[:1000] + content[-2:]), ["n02_11.JPEG", "Corrupt JPEG data"]),
        (spoil(in_train, lambda content: b"hello"), ["n02_11.JPEG", NOT_AN_IMAGE]),
        (spoil(in_val, lambda content: b""), ["val_11.JPEG", NOT_AN_IMAGE]),
        (spoil(in_val, lambda content: content[:20] + content[-2:]), ["val_11.JPEG", TRUNCATED]),
        (spoil(in_train, lambda content: resized(content, 65500)), ["n02_11.JPEG", "65500x65500", "64x64"]),
        (
            lambda root: cv2.imwrite(str(in_train(root)), np.zeros((32, 48, 3), np.uint8)),
            ["n02_11.JPEG", "48x32", "64x64"],
        ),
        (
            lambda root: [image.unlink() for image in [*root.glob("train/n02/images/*")][1:]],
            [r"train/n02\b(?!/)", r"\b1\b"],
        ),
        (lambda root: (root / "wnids.txt").write_text("n01\n"), ["wnids.txt", r"\bn01\b"]),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_that_names_the_file_and_leaves_nothing(command, raw, break_it, parts):
    break_it(raw)
    assert_refused(command("build_tiny_imagenet.py", "--data", raw, code=2), *parts)
    assert not [path for path in raw.glob("hdf5/*") if path.name != ".lock"]


def test_images_that_can_not_be_read_are_counted_over_all_splits(command, raw):
    for image in (*sorted(raw.glob("train/n0?/images/*"))[::40], *sorted(raw.glob("val/images/*"))[:2]):
        image.write_bytes(image.read_bytes()[:-9])
    done = command("build_tiny_imagenet.py", "--data", raw, code=2)
    assert_refused(done, "val_0.JPEG", TRUNCATED, r"\b6\b")


def test_names_that_would_steer_a_terminal_are_refused(command, raw):
    (raw / "val" / "images" / "val_1.JPEG").rename(raw / "val" / "images" / "val_\x1b[31m\n.JPEG")
    done = command("build_tiny_imagenet.py", "--data", raw, code=2)
    assert_refused(done, r"val_\\x1b\[31m\\n\.JPEG'")
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("mean", ["{}", "[1, 2, 3]", '{"R": 1, "G": 2, "B": 256}', '{"R": NaN, "G": 2, "B": 3}', "x"])
def test_a_mean_that_is_none_is_refused(tmp_path, mean):
    (tmp_path / "mean.json").write_text(mean)
    with pytest.raises(ValueError, match=r"mean\.json"):
        read_mean(tmp_path / "mean.json")


def test_files_of_two_data_sets_are_not_mixed(command, built, raw):
    command("build_tiny_imagenet.py", "--data", raw)
    words = (raw / "words.txt").read_text()
    (raw / "words.txt").write_text(words.replace("cow", "calf"))
    shutil.copy(raw / "hdf5" / "train.hdf5", raw / "kept.hdf5")
    command("build_tiny_imagenet.py", "--data", raw, "--overwrite")
    shutil.copy(raw / "kept.hdf5", raw / "hdf5" / "train.hdf5")
    done = command("train.py", "--data", raw, *SMALL, code=2)
    assert_refused(done, "tiny_imagenet", "train", "val", "classes")


def test_a_stranger_s_data_file_ends_the_scripts_in_one_line(command, built, raw):
    shutil.copytree(built / "hdf5", raw / "hdf5")

    def elsewhere(file):
        del file["labels"]
        file["labels"] = h5py.ExternalLink("/etc/passwd", "labels")

    forge(raw / "hdf5" / "val.hdf5", elsewhere, images="images")
    done = command("train.py", "--data", raw, *SMALL, code=2)
    assert_refused(done, "val.hdf5", r"\blabels\b", r"\blink")


def test_images_of_another_size_are_refused(command, raw):
    (raw / "hdf5").mkdir()
    write_mean(raw / "hdf5" / "mean.json", dict.fromkeys("RGB", 1.0))
    for split in ("train", "val"):
        with HDF5DatasetWriter((20, 32, 32, 3), raw / "hdf5" / f"{split}.hdf5") as writer:
            writer.store_class_labels(["n01", "n02"])
            writer.add(np.zeros((20, 32, 32, 3), np.uint8), np.arange(20) % 2)
    done = command("train.py", "--data", raw, *SMALL, code=2)
    assert_refused(done, r"\(32, 32, 3\)", r"\(64, 64, 3\)")
