"""Folders of 32x32 images: training, and broken or hostile images."""

import os
import re
import resource
import shutil
import struct
import zlib

import cv2
import keras
import numpy as np
import pytest
from conftest import load_cifar10
from messages import NOT_AN_IMAGE, NOT_REGULAR, TRUNCATED, assert_names, assert_refused, naming

from pipeline.io.images import read_image


@pytest.fixture
def image_folder(tmp_path):
    for split in ("train", "test"):
        for label, name in enumerate(("ant", "bee")):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(3):
                pixels = np.full((32, 32, 3), (10 * number, 100 * label, 200), np.uint8)
                cv2.imwrite(str(tmp_path / split / name / f"{number}.png"), pixels)
    return tmp_path


def test_a_folder_of_images_loads_as_rgb_in_the_order_of_names(image_folder):
    dataset = load_cifar10(str(image_folder))
    assert dataset.classes == ("ant", "bee")
    assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.train_images[4, 0, 0].tolist() == [200, 100, 10]


def test_a_mirrored_image_is_scored_on_a_line_of_its_own(image_folder, command, tmp_path):
    flags = ("--stages", "1", "--filters", "4,8", "--batch_size", "2", "--epochs", "1", "--holdout", "2")
    command("resnet_cifar10_decay.py", "--data", image_folder, *flags)
    done = command("rank_accuracy.py", "--model", "output/resnet_cifar10.hdf5", "--tta", "flip", "--json", "rank.json")
    model = keras.models.load_model(tmp_path / "output" / "resnet_cifar10.hdf5", compile=False)
    data, mean = load_cifar10(str(image_folder)), load_cifar10(str(image_folder), holdout=2).mean_image()
    scores = [model.predict(images - mean, verbose=0) for images in (data.test_images, data.test_images[:, :, ::-1])]
    ranks = re.findall(r"^rank-1.*: (.*%)$", done.stdout, re.MULTILINE)
    accuracies = [np.mean(scored.argmax(axis=1) == data.test_labels) for scored in (scores[0], sum(scores))]
    assert ranks == [f"{100 * accuracy:.2f}%" for accuracy in accuracies]


def test_images_held_out_are_scored_only_where_they_are_the_same(image_folder, command):
    flags = ("--stages", "1", "--filters", "4,8", "--batch_size", "2", "--epochs", "1", "--holdout", "2")
    command("resnet_cifar10_decay.py", "--data", image_folder, *flags)
    words = ("rank_accuracy.py", "--model", "output/resnet_cifar10.hdf5", "--split", "val")
    assert_names(command(*words).stdout, r"split: val\b", r"images: 2\n")
    # The same images, in another order.
    (image_folder / "train" / "ant" / "0.png").rename(image_folder / "train" / "ant" / "9.png")
    done = command(*words, code=2)
    assert_refused(done, "--holdout", "--data")
    # The mean comes from the checkpoint, even if the training images have changed.
    shutil.rmtree(image_folder / "train")
    assert "split: test\nimages: 6\n" in command(*words[:-1], "test").stdout


def test_a_broken_image_is_named(image_folder):
    victim = image_folder / "test" / "bee" / "1.png"
    whole = victim.read_bytes()
    for content, part in ((whole[:-20], TRUNCATED), (b"GIF89a", NOT_AN_IMAGE)):
        victim.write_bytes(content)
        with pytest.raises(ValueError, match=naming("1.png", part)):
            load_cifar10(str(image_folder))
    cv2.imwrite(str(victim), np.zeros((16, 20, 3), np.uint8))
    with pytest.raises(ValueError, match=naming("1.png", "20x16", "32x32")):
        load_cifar10(str(image_folder))


def test_a_folder_with_other_classes_in_test_is_refused(image_folder):
    (image_folder / "test" / "bee").rename(image_folder / "test" / "cow")
    with pytest.raises(ValueError, match=naming("bee|cow", "train", "test", "class")):
        load_cifar10(str(image_folder))


def claiming(width, height, kind):
    """Return an image of 32x32 pixels whose header claims another size."""
    image = bytearray(cv2.imencode(f".{kind}", np.zeros((32, 32, 3), np.uint8))[1].tobytes())
    if kind == "png":
        image[16:24] = struct.pack(">II", width, height)
        image[29:33] = struct.pack(">I", zlib.crc32(image[12:29]))
    else:
        frame = image.index(b"\xff\xc0")
        image[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(image)


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_an_image_that_claims_to_be_giant_is_refused_by_its_header(image_folder, kind):
    victim = image_folder / "test" / "bee" / "1.png"
    victim.write_bytes(claiming(60_000, 60_000, kind))
    with pytest.raises(ValueError, match=naming("1.png", "60000x60000", "67,108,864")):
        read_image(victim)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=naming("1.png", "60000x60000", "32x32")):
        load_cifar10(str(image_folder))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100e3


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    ("kind", "added", "part"),
    [
        ("png", chunk(b"acTL", bytes(8)), "anima"),
        ("png", chunk(b"zTXt", b"a\0\0" + bytes(1 << 20)), "pixels|metadata"),
        ("jpg", b"\xff\xda\0\x08\1\1\0\0\0\0" * 100, "scans"),
        ("jpg", b"", "Corrupt JPEG data"),
    ],
)
def test_an_image_that_would_cost_or_isn_t_what_it_seems_is_refused(image_folder, kind, added, part):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    image = cv2.imencode(f".{kind}", pixels)[1].tobytes()
    # The JPEG's coded data is truncated, but the end mark is present.
    image = image[:33] + added + image[33:] if kind == "png" else image[:700] + added + image[-2:]
    (image_folder / "test" / "bee" / "1.png").write_bytes(image)
    with pytest.raises(ValueError, match=naming("1.png", part)):
        load_cifar10(str(image_folder))


def test_what_is_no_plain_file_is_refused(image_folder, tmp_path_factory):
    victim = image_folder / "test" / "bee" / "1.png"
    victim.unlink()
    for make, part in (
        (lambda: os.mkfifo(victim), NOT_REGULAR),
        (lambda: victim.symlink_to("/dev/zero"), NOT_REGULAR),
        (lambda: victim.symlink_to("/etc/passwd"), NOT_AN_IMAGE),
    ):
        make()
        with pytest.raises(ValueError, match=naming("1.png", part)):
            load_cifar10(str(image_folder))
        victim.rmdir() if victim.is_dir() else victim.unlink()
    (image_folder / "train" / "bee").rename(image_folder / "train" / "\x1b[2Jbee")
    (image_folder / "test" / "bee").rename(image_folder / "test" / "\x1b[2Jbee")
    with pytest.raises(ValueError, match=r"\\x1b\[2Jbee/0\.png'"):
        load_cifar10(str(image_folder))
    folder = tmp_path_factory.mktemp("pipe")
    os.mkfifo(folder / "data_batch_1")
    with pytest.raises(ValueError, match=naming("data_batch_1", NOT_REGULAR)):
        load_cifar10(str(folder))
