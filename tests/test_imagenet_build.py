"""Building ImageNet's shards."""

import hashlib
import json
import shutil
import subprocess
import sys
import zlib

import cv2
import h5py
import numpy as np
import pytest
from conftest import ROOT
from imagenetlayout import BUILD, IDS, VAL, as_archives, as_folders, as_kaggle, content, jpeg, train_files, val_files
from messages import assert_names, assert_refused

from pipeline.data.imagenet.shardbuilder import _Summer
from pipeline.io.images import decode_image
from pipeline.io.shards import Shards


def pixels(file):
    return cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)


@pytest.mark.parametrize("layout", ["archives", "archives with a list", "archives in sorted order", "kaggle"])
def test_every_layout_gives_the_same_bytes(command, tmp_path, shards, layout):
    root = as_kaggle(tmp_path / "in") if layout == "kaggle" else as_archives(tmp_path / "in")
    if layout == "archives with a list":
        (root / "val_labels.txt").write_text("".join(f"{name} {wordnet_id}\n" for name, wordnet_id in VAL.items()))
        (root / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    elif layout == "archives in sorted order":
        as_archives(root, numbers={wordnet_id: number for number, wordnet_id in enumerate(IDS, 1)})
    done = command(BUILD, "--data", root, "--shards", "2")
    assert_names(done.stdout, "train.* 15 .* 3 ", "val.* 7 .* 3 ")
    assert content(root / "hdf5") == content(shards)


def test_each_image_lies_at_its_place_with_all_that_belongs_to_it(shards):
    assert sorted(content(shards)) == [
        "mean.json",
        *(f"{split}-{number:03}-of-002.hdf5" for split in ("train", "val") for number in range(2)),
    ]
    val = {wordnet_id: {} for wordnet_id in IDS}
    for name, file in val_files().items():
        val[VAL[name]][name] = file
    for split, classes in (("train", train_files()), ("val", val)):
        rows = [
            (label, name, files[name])
            for label, files in enumerate(classes[wordnet_id] for wordnet_id in IDS)
            for name in sorted(files)
        ]
        for number in range(2):
            with h5py.File(shards / f"{split}-{number:03}-of-002.hdf5") as file:
                encoded, offsets = file["encoded"][()].tobytes(), file["offsets"][()]
                assert [name.decode() for name in file["label_names"]] == list(IDS)
                assert [words.decode() for words in file["words"]] == ["tench, Tinca tinca", "crane", "crane"]
                mine = rows[number::2]
                assert offsets.tolist() == [0, *np.cumsum([len(image) for _, _, image in mine])]
                assert encoded == b"".join(image for _, _, image in mine)
                assert file["labels"][()].tolist() == [label for label, _, _ in mine]
                assert [name.decode() for name in file["names"]] == [name for _, name, _ in mine]
                assert file["crc32"][()].tolist() == [zlib.crc32(image) for _, _, image in mine]
                assert file["sizes"][()].tolist() == [list(pixels(image).shape[:2]) for _, _, image in mine]
                types = {name: file[name].dtype for name in file}
                assert types["encoded"] == np.uint8
                assert types["offsets"] == types["labels"] == np.int64
        complete = Shards(shards, split)
        assert [complete.encoded(index) for index in range(len(complete))] == [image for _, _, image in rows]


def test_mean_and_deviation_are_those_of_all_training_pixels(shards):
    stored = json.loads((shards / "mean.json").read_text())
    images = [pixels(file).reshape(-1, 3) for files in train_files().values() for file in files.values()]
    everything = np.concatenate(images).astype(np.float64)
    np.testing.assert_allclose([stored[channel] for channel in "BGR"], everything.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose([stored["deviation"][channel] for channel in "BGR"], everything.std(axis=0), rtol=1e-9)


def test_order_digest_and_mean_do_not_depend_on_the_number_of_shards(command, imagenet, tmp_path, shards):
    command(BUILD, "--data", imagenet, "--output", tmp_path / "five", "--shards", "5")
    for split in ("train", "val"):
        one, other = Shards(shards, split), Shards(tmp_path / "five", split)
        assert one.digest() == other.digest()
        np.testing.assert_array_equal(one.labels, other.labels)
        assert [one.encoded(index) for index in range(len(one))] == [other.encoded(index) for index in range(len(one))]
    assert content(shards)["mean.json"] == content(tmp_path / "five")["mean.json"]
    # No shard is empty.
    command(BUILD, "--data", imagenet, "--output", tmp_path / "many")
    assert len(list((tmp_path / "many").glob("train-*-of-015.hdf5"))) == 15
    assert len(list((tmp_path / "many").glob("val-*-of-007.hdf5"))) == 7


def test_a_shorter_side_shrinks_and_encodes_again_and_never_enlarges(command, imagenet, tmp_path):
    command(BUILD, "--data", imagenet, "--output", tmp_path / "small", "--shards", "2", "--shorter_side", "40")
    small = Shards(tmp_path / "small", "train")
    files = [file for wordnet_id in IDS for _, file in sorted(train_files()[wordnet_id].items())]
    options = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    sums, total = np.zeros(3), 0
    for index, file in enumerate(files):
        image = pixels(file)
        height, width = image.shape[:2]
        factor = min(1, 40 / min(height, width))
        size = (round(height * factor), round(width * factor))
        stored = small.encoded(index)
        assert pixels(stored).shape[:2] == size
        if factor < 1:
            image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
        assert stored == cv2.imencode(".jpg", image, options)[1].tobytes()
        sums += image.sum(axis=(0, 1))
        total += image.shape[0] * image.shape[1]
    stored = json.loads((tmp_path / "small" / "mean.json").read_text())
    np.testing.assert_allclose([stored[channel] for channel in "BGR"], sums / total)


def test_large_images_are_read_and_summed_exactly():
    # ImageNet has images of this height.
    large = jpeg(np.full((6430, 4287, 3), (10, 20, 30), np.uint8))
    assert decode_image(large).shape == (6430, 4287, 3)
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (3, 7), (1500, 1000)):
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        sums = _Summer()(image)
        rgb = image.reshape(-1, 3)[:, ::-1].astype(np.int64)
        assert (sums.pixels, list(sums.values), list(sums.squares)) == (
            height * width,
            rgb.sum(axis=0).tolist(),
            (rgb**2).sum(axis=0).tolist(),
        )


def test_the_official_digests_are_compared_on_request(command, tmp_path, monkeypatch):
    from config import imagenet_config

    root = as_archives(tmp_path / "in")
    done = command(BUILD, "--data", root, "--check_md5", code=2)
    assert_refused(done, "ILSVRC2012_img_train.tar", "1d675b47d978889d74fa0da5fadfb00e")
    assert content(root / "hdf5") == {}
    names = {name: imagenet_config.PARTS[name] for name in imagenet_config.MD5}
    real = {name: hashlib.md5((root / part).read_bytes()).hexdigest() for name, part in names.items()}
    monkeypatch.setattr(imagenet_config, "MD5", real)
    done = command(BUILD, "--data", root, "--check_md5", "--shards", "1")
    assert_names(done.stdout, *names.values())
    shutil.rmtree(root)
    assert_refused(command(BUILD, "--data", as_folders(root), "--check_md5", code=2), "ILSVRC2012_img_train.tar")


def test_the_build_needs_no_keras(imagenet, tmp_path):
    code = (
        "import sys, runpy; sys.modules.update(tensorflow=None, keras=None, jax=None, matplotlib=None, sklearn=None);"
        f"sys.argv = ['{BUILD}', '--data', {str(imagenet)!r}, '--output', {str(tmp_path / 'out')!r}, '--shards', '1'];"
        f"runpy.run_path('{BUILD}', run_name='__main__')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    assert len(Shards(tmp_path / "out", "val")) == 7
