"""A stranger's shards, and damaged ones: refused by the reader and by verify."""

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
from forge import forge
from imagenetlayout import IDS, jpeg, picture
from messages import CORRUPT, MISSING, NOT_CONTIGUOUS, REPEATED, TRUNCATED, UNEXPECTED, naming

from pipeline.io.shards import ChannelSums, Shard, Shards, ShardWriter, find_shards, shard_name
from pipeline.verify import check_file

COUNT = 8
FILES = [jpeg(picture(number, 20 + number, 30)) for number in range(COUNT)]
NAMES = [f"{number}.JPEG".encode() for number in range(COUNT)]
LABELS = np.arange(COUNT) // 3
WORDS = ("tench", "crane", "crane")


def write(folder, split="val", shards=2, files=FILES, words=WORDS):
    """Write the images of a split."""
    for number in range(shards):
        path = folder / shard_name(split, number, shards)
        mine = files[number::shards]
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = [cv2.imdecode(np.frombuffer(file, np.uint8), flags).astype(int) for file in mine]
        values, squares = (sum((image**power).sum(axis=(0, 1)) for image in pixels)[::-1] for power in (1, 2))
        sums = ChannelSums(sum(image[..., 0].size for image in pixels), values, squares)
        place = (number, shards, len(files))
        with ShardWriter(path, len(mine), sum(map(len, mine))) as writer:
            for file, image in zip(mine, pixels, strict=True):
                writer.add(file, image.shape[:2])
            writer.finish(LABELS[number::shards], NAMES[number::shards], (IDS, words), place, sums, b"m" * 32).rename(
                path
            )
    return folder


@pytest.fixture
def shard(tmp_path):
    return write(tmp_path) / "val-000-of-002.hdf5"


def verify(path):
    """Return the objects that verify prints for `path`, and its exit code."""
    words = [sys.executable, "-m", "pipeline.verify", "--json", path]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()], done.returncode


def replace(key, **options):
    def change(file):
        attributes = dict(file[key].attrs)
        del file[key]
        file.create_dataset(key, **options)
        file[key].attrs.update(attributes)

    return change


def edit(key, change):
    """Return a function that changes an array in place."""

    def apply(file):
        values = file[key][()]
        file[key][...] = change(values)

    return apply


def at(row, value):
    def change(values):
        values[row] = value
        return values

    return change


def put(file):
    """Put an image of the same length, and its checksum, in place of the first."""

    def change(content):
        def apply(hdf5):
            end = int(hdf5["offsets"][1])
            padded = content[:2] + content[2:].ljust(end - 2, b"\0")
            assert len(padded) == end
            hdf5["encoded"][:end] = np.frombuffer(padded, np.uint8)
            hdf5["crc32"][0] = zlib.crc32(padded)

        return apply

    return change(file)


def frame(height, width):
    """Return the first image with another size in its header."""
    start = FILES[0].index(b"\xff\xc0")
    return FILES[0][: start + 5] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + FILES[0][start + 9 :]


BIG = np.uint64(1 << 63)
HOSTILE = {
    "overlap": (edit("offsets", at(2, 5)), ["offsets", r"\b1\b"]),
    "backwards": (edit("offsets", lambda offsets: offsets[::-1]), ["offsets"]),
    "empty": (edit("offsets", lambda offsets: np.r_[0, offsets[2], offsets[2:]]), ["offsets", r"\b1\b"]),
    "from elsewhere": (edit("offsets", at(0, -9)), ["offsets", "-9"]),
    "out of the file": (edit("offsets", at(-1, 1 << 40)), ["offsets", str(1 << 40)]),
    "overflow": (edit("offsets", at(2, -(1 << 63))), ["offsets"]),
    "more offsets": (replace("offsets", data=np.arange(6)), ["offsets", r"\(6,\)"]),
    "no width": (edit("sizes", at((0, 1), 0)), ["0x20", "pixels"]),
    "too large": (edit("sizes", at(0, 65_500)), ["65500x65500", "67,108,864"]),
    "negative": (edit("sizes", at(0, -20)), ["-20x-20"]),
    "label": (edit("labels", at(-1, 3)), ["labels", r"\b2\b"]),
    "negative label": (edit("labels", at(0, -1)), ["labels"]),
    "order of labels": (edit("labels", at(0, 2)), ["labels"]),
    "control": (edit("names", at(0, b"\x1b[2J")), ["names", r"'\\x1b\[2J'"]),
    "control in UTF-8": (edit("names", at(0, "\u202e".encode())), ["names", r"u202e"]),
    "zero inside": (edit("names", at(0, b"a\0b")), ["names", r"'a\\x00b'"]),
    "no name": (edit("names", at(0, b"")), ["names"]),
    "not text": (edit("names", at(0, b"\xff")), ["not written by this project|UTF-8|utf-8"]),
    "order of names": (edit("names", at(1, b"0.JPEG")), ["names", REPEATED]),
    "class names": (edit("label_names", at(0, b"\x1b[2J")), ["label_names", r"'\\x1b\[2J'"]),
    "order of classes": (edit("label_names", lambda names: names[::-1]), ["label_names"]),
    "words": (edit("words", at(0, b"a\nb")), ["words", r"'a\\nb'"]),
    "number": (lambda file: file.attrs.modify("shard", np.uint64(2)), [r"\b2 of 2\b"]),
    "many shards": (lambda file: file.attrs.modify("shards", BIG), [str(1 << 63), r"\b256\b"]),
    "images": (lambda file: file.attrs.modify("images", np.uint64(9)), [r"\b4\b", r"\b5\b", r"\b9\b"]),
    "many images": (lambda file: file.attrs.modify("images", BIG), ["9,223,372,036,854,775,808"]),
    "sums": (lambda file: file.attrs.modify("channel_sums", np.full(3, BIG)), ["channel_sums"]),
    "squares": (lambda file: file.attrs.modify("channel_squares", np.zeros(3, np.uint64)), ["channel_squares"]),
    "types": (lambda file: file.attrs.create("images", 8.0), ["images", "uint64"]),
    "shape of sums": (lambda file: file.attrs.create("channel_sums", BIG), ["channel_sums", "array"]),
    "more attributes": (lambda file: file.attrs.create("more", 1), ["attributes", "complete"]),
    "more": (lambda file: file.create_dataset("more", data=1), ["'more'", UNEXPECTED]),
    "missing": (lambda file: file.pop("crc32"), ["crc32", MISSING]),
    "chunked": (replace("crc32", data=np.zeros(4, "<u4"), chunks=(2,)), ["crc32", NOT_CONTIGUOUS]),
    "float": (replace("labels", data=np.zeros(4)), ["labels", "float64"]),
    "long names": (replace("names", data=np.array([b"x" * 2000] * 4)), ["names", "S2000"]),
    "much beside": (replace("label_names", shape=(1 << 16,), dtype="S1024"), ["label_names|beside|words"]),
    "claimed": (replace("encoded", shape=(1 << 40,), dtype=np.uint8), ["encoded", "1,099,511,627,776"]),
    "link": (lambda file: [file.pop("words"), file.__setitem__("words", h5py.SoftLink("/names"))], ["words", "link"]),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_stranger_s_shard_is_held_to_the_format(shard, name):
    change, parts = HOSTILE[name]
    forge(shard, change, images="encoded")
    with pytest.raises(ValueError, match=naming("val-000-of-002.hdf5", *parts)) as error:
        Shards(shard.parent, "val")
    assert str(error.value).isprintable()
    (finding,) = check_file(shard)
    assert not finding.sound
    assert finding.about == str(error.value)


IMAGES = {
    "a lie about its size": (put(frame(20, 31)), ["31x20", "30x20"]),
    "a bomb": (put(frame(65_500, 65_500)), ["65500x65500"]),
    "cut": (put(FILES[0][:-9]), [TRUNCATED]),
    "not an image": (put(b"hello"), ["JPEG or PNG"]),
    "many scans": (put(FILES[0][: FILES[0].index(b"\xff\xda")] + b"\xff\xda\0\x02" * 65), ["scans"]),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_behind_a_valid_checksum_is_held_to_its_size(shard, name):
    change, parts = IMAGES[name]
    forge(shard, change, images="encoded")
    shards = Shards(shard.parent, "val")
    with pytest.raises(ValueError, match=naming("val-000-of-002.hdf5", f"{IDS[0]}/0.JPEG", "row 0", *parts)) as error:
        shards.encoded(0)
    assert shards.encoded(1) == FILES[1]
    assert list(Shard(shard).check(lambda count: None)) == [str(error.value)]


def test_verify_names_each_damaged_image_and_each_refused_shard(tmp_path, shard):
    findings, code = verify(tmp_path)
    assert code == 0
    assert [finding["kind"] for finding in findings] == ["shard", "shard", "shards"]
    whole = shard.read_bytes()
    with h5py.File(shard) as file:
        start = file["encoded"].id.get_offset()
        places = [start + int(file["offsets"][row]) + 100 for row in (1, 3)]
    damaged = bytearray(whole)
    for place in places:
        damaged[place] ^= 1
    shard.write_bytes(damaged)
    findings, code = verify(shard)
    assert code == 1
    assert [finding["sound"] for finding in findings] == [False] * 2
    for finding, row, name in zip(findings, (1, 3), (f"{IDS[0]}/2.JPEG", f"{IDS[2]}/6.JPEG"), strict=False):
        assert all(part in finding["about"] for part in (str(shard), f"row {row}", name, "CRC-32"))
    forge(shard, HOSTILE["control"][0], images="encoded")
    shutil.copy(shard.with_name("val-001-of-002.hdf5"), tmp_path / "val-002-of-002.hdf5")
    findings, code = verify(tmp_path)
    assert code == 1
    assert [finding["sound"] for finding in findings] == [False, True, True, False]
    assert r"\x1b" in findings[0]["about"]


def test_any_flipped_bit_is_noticed(shard):
    whole = shard.read_bytes()
    for place in range(0, len(whole), 37):
        if 72 <= place < 104:  # the mark, which only a build reads
            continue
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            opened = Shard(shard)
        except ValueError:
            continue
        assert list(opened.check(lambda count: None)), place
        opened.close()


def test_shards_that_do_not_belong_together_are_refused(tmp_path, shard):
    def refused(*parts):
        with pytest.raises(ValueError, match=naming(*parts)) as error:
            Shards(tmp_path, "val")
        assert "\n" not in str(error.value)

    other = tmp_path / "other"
    other.mkdir()
    write(other, words=("tench", "crane", "hoist"))
    kept = shard.read_bytes()
    shutil.copy(other / shard.name, shard)
    refused("val-000-of-002.hdf5", "val-001-of-002.hdf5", "different builds")
    shutil.copy(shard.with_name("val-001-of-002.hdf5"), shard)
    refused("val-000-of-002.hdf5", "number 1 of 2", "0 of 2")
    shard.unlink()
    refused("val-000-of-002.hdf5", MISSING)
    shard.write_bytes(kept[:600])
    refused("val-000-of-002.hdf5", CORRUPT)
    shard.write_bytes(kept)
    shutil.copy(shard, tmp_path / "val-000-of-003.hdf5")
    refused(str(tmp_path), r"of 2 and of 3")
    assert len(find_shards(tmp_path)) == 3
    for folder, part in ((tmp_path, "no train shards"), (tmp_path / "no", "missing")):
        with pytest.raises(ValueError, match=naming(str(folder), part)):
            Shards(folder, "train")


def test_a_writer_that_is_left_leaves_no_file(tmp_path):
    with ShardWriter(tmp_path / "val-000-of-001.hdf5", 1, 100) as writer:
        writer.add(b"x" * 10, (1, 1))
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []
