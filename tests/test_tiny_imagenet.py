"""Tiny ImageNet from its folder of JPEG files to rank-5 accuracy, on a small one in the same layout."""

import contextlib
import hashlib
import http.server
import json
import multiprocessing
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import h5py
import keras
import numpy as np
import pytest
from conftest import ROOT, assert_identical, assert_same_curves, write_checkpoint
from forge import forge
from messages import (
    CORRUPT,
    EXISTS,
    MISSING,
    NOT_AN_IMAGE,
    REPEATED,
    TRUNCATED,
    assert_names,
    assert_refused,
    naming,
)
from sklearn.model_selection import train_test_split

from config import tiny_imagenet_config as config
from pipeline.cli.recipe import Recipe
from pipeline.data import TinyImageNet, tinyimagenetfiles
from pipeline.io import HDF5DatasetGenerator, HDF5DatasetWriter, archives
from pipeline.io.imagereader import ImageReader
from pipeline.nn.conv import ResNet

IDS = ("n03", "n01", "n02")
TRAIN_PER_CLASS, VAL_PER_CLASS = 62, 5
SMALL = ("--batch_size", "12", "--stages", "1,1", "--filters", "4,8,16")


@pytest.fixture(scope="session")
def layout(tmp_path_factory):
    """Three classes, each of a colour of its own, with noise."""
    root = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)

    def write(path, label):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 100, (64, 64, 3), np.uint8)
        pixels[..., label] += 120
        cv2.imwrite(str(path), pixels)

    mappings = []
    for label, wordnet_id in enumerate(IDS):
        for number in range(TRAIN_PER_CLASS):
            write(root / "train" / wordnet_id / "images" / f"{wordnet_id}_{number}.JPEG", label)
        (root / "train" / wordnet_id / f"{wordnet_id}_boxes.txt").write_text("a_0.JPEG\t0\t0\t9\t9\n")
        for number in range(label, 3 * VAL_PER_CLASS, 3):
            write(root / "val" / "images" / f"val_{number}.JPEG", label)
            mappings.append(f"val_{number}.JPEG\t{wordnet_id}\t0\t0\t9\t9\n")
    for number in range(7):
        write(root / "test" / "images" / f"test_{number}.JPEG", number % 3)
    (root / "val" / "val_annotations.txt").write_text("".join(mappings))
    (root / "wnids.txt").write_text("\n".join(IDS))
    (root / "words.txt").write_text("n00\tentity\nn01\tant\nn02\tbee, wasp\nn03\tcow\nn04\tdog\n")
    return root


@pytest.fixture
def raw(layout, tmp_path):
    """A copy that a test may break."""
    return shutil.copytree(layout, tmp_path / "tiny")


@pytest.fixture(scope="session")
def built(layout, tmp_path_factory):
    root = shutil.copytree(layout, tmp_path_factory.mktemp("built") / "tiny")
    subprocess.run([sys.executable, ROOT / "build_tiny_imagenet.py", "--data", root], check=True, capture_output=True)
    return root


def contents(root):
    """The images of each split with their class ids, and the mean."""
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
    # Blue, green, red, as OpenCV reads them.
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


def test_images_that_can_not_be_read_are_counted_over_all_splits(command, raw):
    for image in (*sorted(raw.glob("train/n0?/images/*"))[::40], *sorted(raw.glob("val/images/*"))[:2]):
        image.write_bytes(image.read_bytes()[:-9])
    done = command("build_tiny_imagenet.py", "--data", raw, code=2)
    assert_refused(done, "val_0.JPEG", TRUNCATED, r"\b6\b")


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


def image_of(root, *parts):
    return sorted((root.joinpath(*parts)).iterdir())[3]


def spoil(place, change):
    """A way to spoil the file at `place`, given what it is to do to its content."""
    return lambda root: place(root).write_bytes(change(place(root).read_bytes()))


def resized(jpeg, size):
    """A JPEG whose header claims `size` pixels each way."""
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
        (lambda root: shutil.rmtree(root / "val" / "images"), ["val/images", MISSING]),
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


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (met := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return met


def processes_of(session):
    """The processes that are still in a session."""
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
    # What was left is swept by the next build.
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


@pytest.fixture
def server(tmp_path):
    """Serves the files of a folder on this machine; yields the folder and the address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=folder)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        threading.Thread(target=http_server.serve_forever).start()
        yield folder, f"http://127.0.0.1:{http_server.server_port}/tiny.zip"
        http_server.shutdown()


def archive(layout, path, extra=None):
    with zipfile.ZipFile(path, "w") as file:
        for source in sorted(layout.rglob("*")):
            file.write(source, f"tiny-imagenet-200/{source.relative_to(layout)}")
        for name, content in (extra or {}).items():
            file.writestr(name, content)
    return {"md5": hashlib.md5(path.read_bytes()).hexdigest(), "size": path.stat().st_size}


def test_a_download_is_checked_and_appears_whole(layout, server, tmp_path):
    folder, url = server
    expected = archive(layout, folder / "tiny.zip")
    root, received = tmp_path / "new" / "tiny", []
    tinyimagenetfiles.download(root, url=url, **expected, advance=received.append)
    assert sum(received) == expected["size"]
    for source in layout.rglob("*.*"):
        assert (root / source.relative_to(layout)).read_bytes() == source.read_bytes()
    with pytest.raises(ValueError, match=naming(str(root), EXISTS)):
        tinyimagenetfiles.download(root, url=url, **expected, advance=received.append)
    other = tmp_path / "other" / "tiny"
    for wrong in ({"md5": "0" * 32}, {"size": 17}, {"url": url + "x"}, {"url": "http://127.0.0.1:9/tiny.zip"}):
        with pytest.raises(ValueError, match=naming("tiny.zip", *map(str, ({"md5": ""} | wrong).values()))):
            tinyimagenetfiles.download(other, **({"url": url} | expected | wrong), advance=received.append)
        assert not list(other.parent.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "../../escaped.JPEG",
        "/tmp/escaped.JPEG",
        "tiny-imagenet-200/val/images/x.py",
        "tiny-imagenet-200/val/images/../../../../val_0.JPEG",
        "tiny-imagenet-200/val/images/val_\x1b[2J.JPEG",
        "tiny-imagenet-200\\val\\images\\val_0.JPEG",
    ],
)
def test_an_archive_with_other_members_is_not_unpacked(layout, server, tmp_path, name):
    folder, url = server
    expected = archive(layout, folder / "tiny.zip", {name: b"x"})
    with pytest.raises(ValueError, match=naming("archive.zip", re.escape(ascii(name)))):
        tinyimagenetfiles.download(tmp_path / "new" / "tiny", url=url, **expected, advance=lambda count: None)
    assert not list((tmp_path / "new").iterdir())


PACKED = r"\bpacked (in|another|other)|encrypt|compress|method"


@pytest.mark.parametrize(
    ("spoil_archive", "parts"),
    [
        (
            lambda content: content.replace(b"\x14\0\0\0\x08\0", b"\x14\0\1\0\x08\0"),
            ["tiny-imagenet-200/wnids.txt", PACKED],
        ),  # encrypted
        (
            lambda content: content.replace(b"\x14\0\0\0\x08\0", b"\x14\0\0\0\x0c\0"),
            ["tiny-imagenet-200/wnids.txt", PACKED],
        ),  # bzip2
        (lambda content: content[:200] + b"xxxx" + content[204:], [CORRUPT + "|decompress|zip archive"]),
    ],
)
def test_an_archive_packed_in_another_way_is_not_unpacked(tmp_path, spoil_archive, parts):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("tiny-imagenet-200/wnids.txt", "".join(f"n{n}\n" for n in range(999)))
    path.write_bytes(spoil_archive(path.read_bytes()))
    with pytest.raises(ValueError, match=naming("a.zip", *parts)):
        archives.unpack(path, tmp_path / "out", tinyimagenetfiles.MEMBERS)


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("tiny-imagenet-200/wnids.txt", bytes(65 << 20))
    with pytest.raises(ValueError, match=naming("bomb.zip", "tiny-imagenet-200/wnids.txt")):
        archives.unpack(path, tmp_path / "out", tinyimagenetfiles.MEMBERS)
    assert not (tmp_path / "out").exists()


def test_names_that_would_steer_a_terminal_are_refused(command, raw):
    (raw / "val" / "images" / "val_1.JPEG").rename(raw / "val" / "images" / "val_\x1b[31m\n.JPEG")
    done = command("build_tiny_imagenet.py", "--data", raw, code=2)
    assert_refused(done, r"val_\\x1b\[31m\\n\.JPEG'")
    assert "\x1b" not in done.stderr


def test_a_damaged_archive_is_named(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\3\4 no archive")
    with pytest.raises(ValueError, match=naming("a.zip", "not a zip|zip archive")):
        archives.unpack(tmp_path / "a.zip", tmp_path, tinyimagenetfiles.MEMBERS)


def test_training_stops_resumes_and_is_ranked(command, built, tmp_path):
    options = ("--data", built, *SMALL)
    command("train.py", *options, "--epochs", "3", "--every", "1", "-c", "straight", "-o", "straight")
    command("train.py", *options, "--epochs", "3", "--every", "1", "--stop_after", "1", "-c", "parts", "-o", "parts")
    done = command("train.py", "-c", "parts", "--model", "latest", "--workers", "1")
    assert_identical(tmp_path / "straight" / "epoch_3.hdf5", tmp_path / "parts" / "epoch_3.hdf5")
    assert_same_curves(tmp_path / "straight", tmp_path / "parts")
    assert "bee, wasp" in done.stdout
    history = json.loads((tmp_path / "parts" / "train.json").read_text())
    assert history["run"]["arguments"]["nesterov"] is True

    command("train_decay.py", *options, "--epochs", "2", "-m", "decay.hdf5")
    for model in ("decay.hdf5", "parts/epoch_3.hdf5"):
        # 150 test images in batches of 64: every one counts, those of the short last batch too.
        done = command("rank_accuracy.py", "--data", built, "-m", model, "--json", "rank.json")
        assert "images: 150\n" in done.stdout
        result = json.loads((tmp_path / "rank.json").read_text())
        assert f"rank-1: {100 * result['rank-1']:.2f}%" in done.stdout
        # Of three classes, the right one is always among the best five.
        assert result["rank-5"] == 1.0
    done = command("rank_accuracy.py", "-m", "decay.hdf5", "--split", "val", "--batch_size", "7")
    assert_names(done.stdout, r"split: val\b", r"images: 15\n")


def test_the_accuracy_is_that_of_the_predictions(command, built, tmp_path):
    command("train.py", "--data", built, *SMALL, "--epochs", "2", "--every", "1")
    outputs = ("--submission", "out/submission.txt", "--json", "out/rank.json")
    done = command("rank_accuracy.py", "--data", built, "--tta", "flip", *outputs)
    assert "model: output/train/checkpoints/epoch_2.hdf5" in done.stdout
    model = keras.models.load_model(tmp_path / "output" / "train" / "checkpoints" / "epoch_2.hdf5", compile=False)
    mean = json.loads((built / "hdf5" / "mean.json").read_text())
    bgr = np.float32([mean["B"], mean["G"], mean["R"]])
    with h5py.File(built / "hdf5" / "test.hdf5") as file:
        scores, mirrored = (
            model.predict(images - bgr, verbose=0) for images in (file["images"][()], file["images"][()][:, :, ::-1])
        )
        labels = file["labels"][()]
    result = json.loads((tmp_path / "out" / "rank.json").read_text())
    assert result["rank-1"] == pytest.approx(np.mean(scores.argmax(axis=1) == labels))
    # The mirrored images count on a line of their own.
    with_flip = np.mean((scores + mirrored).argmax(axis=1) == labels)
    assert result["tta flip"]["rank-1"] == pytest.approx(with_flip)
    assert f"\nrank-1: {100 * result['rank-1']:.2f}%\n" in done.stdout
    assert re.search(rf"\nrank-1, .*: {100 * with_flip:.2f}%\n", done.stdout)
    lines = (tmp_path / "out" / "submission.txt").read_text().splitlines()
    paths = sorted((built / "test" / "images").iterdir())
    predicted = model.predict(np.stack([cv2.imread(str(path)) for path in paths]) - bgr, verbose=0).argmax(axis=1)
    assert lines == [f"{path.name} {sorted(IDS)[label]}" for path, label in zip(paths, predicted, strict=True)]


def source_of(folder, **options):
    return TinyImageNet(config.files(str(folder)), **options)


def test_images_held_out_of_training_are_validated_on_and_no_others(built):
    whole, part = source_of(built), source_of(built, holdout=7)
    count = len(whole.train)
    assert (len(part.train), len(part.val), len(part.whole("test"))) == (count - 7, 7, len(whole.whole("test")))
    assert sorted(np.concatenate([part.train._rows, part.val._rows]).tolist()) == list(range(count))
    few = source_of(built, holdout=7, limit=10)
    assert (len(few.train), len(few.val)) == (10, 7)
    np.testing.assert_array_equal(few.val._rows, part.val._rows)
    # A choice by a limit alone is the same images of each split.
    assert (len(source_of(built, limit=10).train), len(source_of(built, limit=10).val)) == (10, 10)
    with pytest.raises(ValueError, match=naming(f"`holdout` {count}", rf"{count}\D+{count}")):
        source_of(built, holdout=count).train_batches(5)
    with pytest.raises(ValueError, match=naming("`limit`", r"\b0\b")):
        source_of(built, limit=0)


def test_the_digest_is_that_of_the_files_and_the_mean_whatever_is_chosen(built, tmp_path):
    digest = source_of(built).digest()
    assert digest == source_of(built, limit=7).digest()
    assert len({source_of(built, holdout=count).digest() for count in (7, 8)} - {digest}) == 1
    tinyimagenetfiles.write_mean(tmp_path / "mean.json", dict.fromkeys("RGB", 1.0))
    assert TinyImageNet(config.files(str(built)) | {"mean": tmp_path / "mean.json"}).digest() != digest


MIXED = {"cutout": 16, "mixup": 0.2, "cutmix": 1.0, "label_smoothing": 0.1}


@pytest.mark.parametrize("recipe", [config.PUBLISHED, config.MODERN, config.MODERN | MIXED])
def test_the_first_batches_of_an_epoch_are_the_same_after_a_resume(built, recipe):
    made = Recipe.of(recipe)
    varied = {"aug": made.augmentation, "mixing": made.mixing, "seed": 42}
    straight, resumed = (source_of(built).train_batches(5, workers=workers, **varied) for workers in (1, 4))
    for epoch in range(4):
        straight.set_epoch(epoch)
        batches = list(straight)
    resumed.set_epoch(3)
    for ours, theirs in zip(resumed, batches, strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_rank_accuracy_says_what_it_can_not_use(command, built, raw, tmp_path):
    done = command("rank_accuracy.py", "--data", built, code=2)
    assert_refused(done, "output/resnet_tinyimagenet_decay.hdf5", "output/train/checkpoints|checkpoint")
    done = command("rank_accuracy.py", "--data", built, "-m", "nothing.hdf5", code=2)
    assert_refused(done, "nothing.hdf5", "No such file")
    for dataset in ("tiny_imagenet", "imagenet"):
        network = {**config.IMAGES, "classes": 5, "stages": [1], "filters": [4, 8], "dataset": dataset}
        model = ResNet.build(**network)
        model.compile(keras.optimizers.SGD(0.1, name="sgd"), "mse")
        path = tmp_path / "other.hdf5"
        write_checkpoint(path, model)
        done = command("rank_accuracy.py", "--data", built, "-m", path, code=2)
        assert_refused(done, "other.hdf5", "cifar10, tiny_imagenet", "--dataset")
        done = command("rank_accuracy.py", "--data", built, "-m", path, "--dataset", "tiny_imagenet", code=2)
        assert_refused(done, "other.hdf5", "64x64x3", r"\b5 classes", r"\b3 classes")
    command("train.py", "--data", built, *SMALL, "--epochs", "1")
    done = command("rank_accuracy.py", "--data", raw, "-m", "output/train/checkpoints/epoch_1.hdf5", code=2)
    assert_refused(done, "test.hdf5", MISSING)
    for output in ("--json", "--submission"):
        done = command("rank_accuracy.py", "--data", built, output, tmp_path, code=2)
        assert_refused(done, rf"{tmp_path}\b(?!/)", "folder|directory")
    shutil.copytree(built / "hdf5", raw / "hdf5")
    shutil.rmtree(raw / "test")
    done = command("rank_accuracy.py", "--data", raw, "--submission", "s.txt", code=2)
    assert_refused(done, "test/images", MISSING)
    (raw / "hdf5" / "mean.json").write_text('{"R": 1, "G": 2, "B": 3}')
    done = command("train.py", "--data", raw, "--model", "latest", "--epochs", "2", code=2)
    assert_refused(done, f"{raw}", "images", "--data")


def test_what_the_mean_doesn_t_depend_on_is_not_needed_to_score_the_test_set(command, built, tmp_path, monkeypatch):
    command("train.py", "--data", built, *SMALL, "--epochs", "1", "--limit", "12")
    (tmp_path / "home" / "hdf5").mkdir(parents=True)
    for name in ("test.hdf5", "mean.json"):
        shutil.copy(built / "hdf5" / name, tmp_path / "home" / "hdf5")
    shutil.copytree(built / "test", tmp_path / "home" / "test")
    # By the environment, with a home folder in it.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TINY_IMAGENET_DIR", "~/home")
    command("rank_accuracy.py", "--submission", "submission.txt")
    done = command("rank_accuracy.py", "--split", "val", code=2)
    assert_refused(done, "val.hdf5", MISSING)
    done = command("rank_accuracy.py", "--dataset", "cifar10", code=2)
    assert_refused(done, "--dataset cifar10", "output/train/checkpoints/epoch_1.hdf5", "tiny_imagenet")
    monkeypatch.setenv("TINY_IMAGENET_DIR", "~no_such_user/home")
    assert_refused(command("rank_accuracy.py", code=2), "TINY_IMAGENET_DIR", "'~no_such_user/home'")


def test_a_decoder_that_died_is_told(layout):
    paths = [str(path) for path in layout.glob("train/*/images/*.JPEG")]
    with ImageReader((64, 64), 1) as reader:
        list(reader.read(paths[:3]))
        for child in multiprocessing.active_children():
            child.kill()
            child.join()
        with pytest.raises(OSError, match=naming("process", "images")):
            list(reader.read(paths))


@pytest.mark.parametrize("mean", ["{}", "[1, 2, 3]", '{"R": 1, "G": 2, "B": 256}', '{"R": NaN, "G": 2, "B": 3}', "x"])
def test_a_mean_that_is_none_is_refused(tmp_path, mean):
    (tmp_path / "mean.json").write_text(mean)
    with pytest.raises(ValueError, match=r"mean\.json"):
        tinyimagenetfiles.read_mean(tmp_path / "mean.json")


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
    tinyimagenetfiles.write_mean(raw / "hdf5" / "mean.json", dict.fromkeys("RGB", 1.0))
    for split in ("train", "val"):
        with HDF5DatasetWriter((20, 32, 32, 3), raw / "hdf5" / f"{split}.hdf5") as writer:
            writer.store_class_labels(["n01", "n02"])
            writer.add(np.zeros((20, 32, 32, 3), np.uint8), np.arange(20) % 2)
    done = command("train.py", "--data", raw, *SMALL, code=2)
    assert_refused(done, r"\(32, 32, 3\)", r"\(64, 64, 3\)")


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
