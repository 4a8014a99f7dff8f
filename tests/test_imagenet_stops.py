"""Builds of ImageNet that are stopped, that meet damaged images, or that meet another build."""

import shutil
import signal
import subprocess
import sys
import time
from itertools import count

import cv2
import numpy as np
import pytest
from conftest import ROOT
from imagenetlayout import BUILD, IDS, content
from messages import EXISTS, TRUNCATED, assert_names, assert_refused

from pipeline.io.shards import Shards
from pipeline.verify import findings


def test_a_build_that_is_killed_goes_on_and_ends_with_the_same_bytes(command, imagenet, started, tmp_path, shards):
    folder = tmp_path / "out"
    arguments = ("--data", imagenet, "--output", folder, "--shards", "2")
    # Kill it at the end of each shard, when all of it is written but not all is renamed.
    for number in count(1):
        build = started("tests/faults.py", "publish", str(number), ROOT / BUILD, *arguments)
        ended = build.wait(60)
        there = {name: file for name, file in content(folder).items() if not name.endswith(".tmp")}
        assert there.items() <= content(shards).items()
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
    assert number > 3
    done = command(BUILD, *arguments)
    assert_names(done.stdout, r"\b4 of 4\b")
    assert content(folder) == content(shards)


def test_two_builds_at_once_and_another_build_in_the_same_place_are_refused(command, raw_imagenet, started, shards):
    root = raw_imagenet
    build = started("tests/faults.py", "pause", "1", ROOT / BUILD, "--data", root, "--shards", "2")
    deadline = time.monotonic() + 30
    while not list(root.glob("hdf5/*.tmp")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert_refused(command(BUILD, "--data", root, "--shards", "2", code=2), "hdf5", rf"\b{build.pid}\b")
    build.send_signal(signal.SIGTERM)
    assert build.wait(30) == 128 + signal.SIGTERM
    assert content(root / "hdf5") == {}
    command(BUILD, "--data", root, "--shards", "2")
    for other in (("--shards", "3"), ("--shards", "2", "--shorter_side", "20")):
        done = command(BUILD, "--data", root, *other, code=2)
        assert_refused(done, r"train-00[0-2]-of-00\d\.hdf5", EXISTS, "--overwrite")
    assert content(root / "hdf5") == content(shards)
    command(BUILD, "--data", root, "--shards", "3", "--overwrite")
    assert len(content(root / "hdf5")) == 7


def test_a_damaged_image_costs_its_shard_only_and_the_others_are_kept(command, raw_imagenet, shards):
    root = raw_imagenet
    images = sorted((root / "train" / IDS[0]).iterdir())
    whole = [image.read_bytes() for image in images]
    images[0].write_bytes(whole[0][:-9])
    images[2].write_bytes(b"hello")
    done = command(BUILD, "--data", root, "--shards", "2", code=2)
    assert_refused(done, f"{IDS[0]}_0.JPEG", TRUNCATED, r"\b1 more")
    assert_names(done.stdout, f"{IDS[0]}_2.JPEG.*JPEG or PNG", r"\b3 of 4\b")
    assert sorted(content(root / "hdf5")) == ["train-001-of-002.hdf5", *(f"val-00{n}-of-002.hdf5" for n in (0, 1))]
    for image, file in zip(images, whole, strict=True):
        image.write_bytes(file)
    done = command(BUILD, "--data", root, "--shards", "2")
    assert_names(done.stdout, r"\b3 of 4\b")
    assert content(root / "hdf5") == content(shards)


def test_an_image_too_long_for_a_smaller_copy_is_refused_like_a_damaged_one(command, raw_imagenet):
    path = raw_imagenet / "train" / IDS[0] / "long.JPEG"
    path.write_bytes(cv2.imencode(".png", np.zeros((4, 66_000, 3), np.uint8))[1].tobytes())
    done = command(BUILD, "--data", raw_imagenet, "--shards", "2", "--shorter_side", "40", code=2)
    assert_refused(done, "long.JPEG", "66000x4", "65,500")
    assert len(content(raw_imagenet / "hdf5")) == 3


def test_a_damaged_shard_is_not_taken_for_complete(command, imagenet, tmp_path, shards):
    folder = shutil.copytree(shards, tmp_path / "out")
    path = folder / "val-001-of-002.hdf5"
    arguments = ("--data", imagenet, "--output", folder, "--shards", "2")
    whole = path.read_bytes()
    for damaged, word in ((b"", "seal"), (whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:], "digest")):
        path.write_bytes(damaged)
        assert_refused(command(BUILD, *arguments, code=2), path.name, word, "remove the shard")
    path.write_bytes(whole[:-20])  # as after a power failure
    command(BUILD, *arguments)
    assert content(folder) == content(shards)


def test_a_worker_that_dies_is_one_line(imagenet, tmp_path):
    code = (
        "import runpy, sys; from pipeline.data.imagenet import build; wait = build.wait;"
        "kill = lambda busy: [worker.process.kill() for worker in busy.values()];"
        "build.wait = lambda busy: kill(busy) and wait(busy);"
        f"sys.argv = ['{BUILD}', '--data', {str(imagenet)!r}, '--output', {str(tmp_path / 'out')!r}];"
        f"runpy.run_path('{BUILD}', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert_refused(done, "killed", "memory")
    assert content(tmp_path / "out") == {}


def test_an_output_inside_the_images_or_beside_another_mean_is_refused(command, raw_imagenet, tmp_path):
    done = command(BUILD, "--data", raw_imagenet, "--output", raw_imagenet / "train" / "out", code=2)
    assert_refused(done, "--output", "train/out")
    assert not (raw_imagenet / "train" / "out").exists()
    (tmp_path / "mean.json").write_text("mine")
    assert_refused(command(BUILD, "--data", raw_imagenet, "--output", tmp_path, code=2), "mean.json", EXISTS)
    assert (tmp_path / "mean.json").read_text() == "mine"


def test_verify_knows_an_unfinished_build_a_damaged_shard_and_another_mean(tmp_path, shards):
    folder = shutil.copytree(shards, tmp_path / "out")

    def unsound():
        return [finding.about for finding in findings(folder) if not finding.sound]

    assert unsound() == []
    mean = (folder / "mean.json").read_text()
    (folder / "mean.json").write_text(mean.replace('"R": 1', '"R": 2'))
    (about,) = unsound()
    assert_names(about, "mean.json", "R 2", "expected 1")
    (folder / "mean.json").unlink()
    (about,) = unsound()
    assert_names(about, "no mean.json")
    (folder / "mean.json").write_text(mean)
    path = folder / "train-001-of-002.hdf5"
    whole = path.read_bytes()
    path.write_bytes(whole[:9000] + bytes([whole[9000] ^ 1]) + whole[9001:])
    image, split = unsound()
    assert_names(image, path.name, "CRC-32")
    assert_names(split, "1 damaged train")
    path.unlink()
    (about,) = unsound()
    assert_names(about, "lacks 1 of 2 train shards", path.name)


def test_an_image_that_the_decoder_warns_about_is_taken_on_request_only(command, raw_imagenet):
    image = raw_imagenet / "train" / IDS[0] / f"{IDS[0]}_0.JPEG"
    damaged = image.read_bytes()
    place = len(damaged) // 2
    image.write_bytes(damaged[:place] + b"\0" * 9 + damaged[place + 9 :])
    arguments = ("--data", raw_imagenet, "--shards", "1")
    assert_refused(command(BUILD, *arguments, code=2), image.name, "damaged", "--accept_warnings")
    done = command(BUILD, *arguments, "--accept_warnings")
    assert_refused(done, image.name, "warning")
    assert Shards(raw_imagenet / "hdf5", "train").encoded(0) == image.read_bytes()


@pytest.mark.parametrize(("limit", "options"), [(900, ()), (9000, ()), (30_000, ()), (9000, ("--shorter_side", "40"))])
def test_a_full_disk_is_one_line_and_leaves_nothing_half(imagenet, tmp_path, limit, options):
    code = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2);"
        f"sys.argv = ['{BUILD}', '--data', {str(imagenet)!r}, '--output', {str(tmp_path / 'out')!r}, *sys.argv[1:]];"
        f"runpy.run_path('{ROOT / BUILD}', run_name='__main__')"
    )
    words = [sys.executable, "-c", code, str(limit), "--shards", "1", *options]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert_refused(done, r"(train|val)-000-of-001\.hdf5", "File too large")
    assert content(tmp_path / "out").keys() <= {"train-000-of-001.hdf5", "val-000-of-001.hdf5"}


def test_a_disk_with_too_little_room_is_noticed_before_the_build(command, imagenet, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=9000))
    done = command(BUILD, "--data", imagenet, "--output", tmp_path / "out", "--shards", "2", code=1)
    assert_refused(done, str(tmp_path / "out"), "9,000", r"\b\d\d,\d\d\d bytes")
    assert content(tmp_path / "out") == {}
