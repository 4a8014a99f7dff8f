"""CIFAR-10 in each form it is kept in, whole and broken."""

import gzip
import io
import os
import pickle
import re
import resource
import shutil
import struct
import subprocess
import sys
import tarfile
import time
import zlib

import cv2
import keras
import numpy as np
import pytest
from conftest import ROOT, load_cifar10
from messages import MISSING, NOT_AN_IMAGE, NOT_REGULAR, TRUNCATED, assert_names, assert_refused, naming

from pipeline.data import cifar10
from pipeline.files.pickledarrays import read_pickled
from pipeline.io.images import read_image

FILES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


@pytest.fixture(scope="module")
def official():
    """Rows and labels of each file: constant images, so that archives of them are small."""
    rng = np.random.default_rng(0)
    parts = {}
    for name in FILES:
        labels = rng.integers(0, 10, 10_000)
        # Red holds the label, green and blue the row's number.
        planes = np.stack([labels, np.arange(10_000) % 256, np.arange(10_000) // 256], axis=1).astype(np.uint8)
        parts[name] = np.repeat(planes, 1024, axis=1), labels.tolist()
    return parts


def python_layout(official):
    return {
        f"cifar-10-batches-py/{name}": pickle.dumps({b"data": rows, b"labels": labels}, protocol=3)
        for name, (rows, labels) in official.items()
    }


def binary_layout(official):
    return {
        f"cifar-10-batches-bin/{name}.bin": np.column_stack([np.array(labels, np.uint8), rows]).tobytes()
        for name, (rows, labels) in official.items()
    }


def write_archive(path, members):
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_folder(path, members):
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return (path / name).parent


def check(dataset, official):
    assert dataset.train_images.shape == (50_000, 32, 32, 3)
    assert dataset.test_images.shape == (10_000, 32, 32, 3)
    assert dataset.train_images.dtype == np.uint8
    assert dataset.classes[3] == "cat"
    assert dataset.mirrors
    np.testing.assert_array_equal(dataset.train_labels, np.concatenate([official[name][1] for name in FILES[:5]]))
    np.testing.assert_array_equal(dataset.test_labels, official["test_batch"][1])
    # Channel 0 is red, which holds the label; row 300 of a file is 44 + 1 * 256.
    np.testing.assert_array_equal(
        dataset.train_images[..., 0], dataset.train_labels[:, None, None].repeat(32, 1).repeat(32, 2)
    )
    assert dataset.train_images[10_300, 5, 7].tolist() == [dataset.train_labels[10_300], 44, 1]


@pytest.mark.parametrize("layout", [python_layout, binary_layout])
def test_both_layouts_load_from_archive_and_folder(official, tmp_path, layout):
    members = layout(official)
    for path in (write_archive(tmp_path / "a.tar.gz", members), write_folder(tmp_path, members)):
        check(load_cifar10(str(path)), official)


def test_a_limit_takes_the_same_samples_each_time(official, tmp_path):
    folder = str(write_folder(tmp_path, binary_layout(official)))
    whole, limited = load_cifar10(folder), load_cifar10(folder, 100)
    assert limited.train_images.shape == (100, 32, 32, 3)
    assert limited.test_images.shape == (100, 32, 32, 3)
    np.testing.assert_array_equal(limited.train_images, load_cifar10(folder, 100).train_images)
    # Not the first ones, which are of one file alone.
    assert not np.array_equal(limited.train_images, whole.train_images[:100])
    assert load_cifar10(folder, 10**6).test_labels.shape == (10_000,)


class Payload:
    def __reduce__(self):
        return (open, ("pwned", "w"))


def test_a_pickle_that_names_a_function_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": Payload(), b"labels": []}))
    with pytest.raises(ValueError, match=naming("data_batch_1", r"\bopen\b")):
        load_cifar10(str(tmp_path))
    assert not (tmp_path / "pwned").exists()


def test_broken_files_are_named(official, tmp_path):
    members = binary_layout(official)
    folder = write_folder(tmp_path, members)
    (folder / "data_batch_3.bin").write_bytes(b"short")
    with pytest.raises(ValueError, match=naming("data_batch_3.bin", r"\b5 bytes", "30,?730,?000")):
        load_cifar10(str(folder))
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(ValueError, match=naming("data_batch_3.bin", MISSING)):
        load_cifar10(str(folder))
    archive = write_archive(tmp_path / "lacking.tar.gz", {k: v for k, v in members.items() if "5" not in k})
    with pytest.raises(ValueError, match=naming("lacking.tar.gz", "data_batch_5", MISSING)):
        load_cifar10(str(archive))
    whole = write_archive(tmp_path / "damaged.tar.gz", members)
    content = bytearray(whole.read_bytes())
    for start in range(1000, len(content), len(content) // 12):
        damaged = content[:start] + bytes(range(20)) + content[start + 20 :]
        whole.write_bytes(damaged)
        with pytest.raises(ValueError, match=naming("damaged.tar.gz", "CIFAR-10|data_batch|test_batch")):
            load_cifar10(str(whole))
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=naming("lacking.tar.gz", "CIFAR-10", "archive")):
        load_cifar10(str(archive))
    archive.write_text("hello")
    with pytest.raises(ValueError, match=naming("lacking.tar.gz", "CIFAR-10", "archive")):
        load_cifar10(str(archive))


@pytest.mark.parametrize(
    ("batch", "parts"),
    [
        ({b"data": np.zeros((10_000, 3072), np.float32), b"labels": [0] * 10_000}, ["33,554,432"]),
        ({b"data": np.zeros((9_999, 3072), np.uint8), b"labels": [0] * 9_999}, [r"\(9999, 3072\)", "10,?000"]),
        ({b"data": np.zeros((10_000, 3072), np.uint8), b"labels": [10] * 10_000}, ["labels", "10,?000", r"\b9\b"]),
        ({b"data": np.zeros((10_000, 3072), np.uint8), b"labels": [0] * 9_999}, ["labels", "10,?000", r"\b9\b"]),
        ({b"labels": []}, ["dict|keys?", r"\bdata\b", "labels"]),
        ([], ["dict|keys?", r"\bdata\b", "labels"]),
    ],
)
def test_a_pickle_with_other_contents_is_refused(tmp_path, batch, parts):
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(batch))
    with pytest.raises(ValueError, match=naming("data_batch_1", *parts)):
        load_cifar10(str(tmp_path))


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
    # The test images are less the mean in the checkpoint, whatever has become of the training images.
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


def test_what_is_no_data_set_says_what_would_be(tmp_path):
    with pytest.raises(ValueError, match=naming("`data`", "CIFAR-10", "cifar-10-python.tar.gz", r"train/<class>/")):
        load_cifar10(str(tmp_path))
    with pytest.raises(ValueError, match=naming("`data`", "nowhere", MISSING)):
        load_cifar10(str(tmp_path / "nowhere"))


def test_without_a_network_the_error_says_where_to_get_and_put_the_archive(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "URL", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    with pytest.raises(ValueError, match=naming("127.0.0.1:9", f"{tmp_path}.*cifar-10", "`data` digits")) as error:
        load_cifar10()
    assert "\n" not in str(error.value)


def test_digits_are_split_by_class_and_always_the_same():
    dataset = load_cifar10("digits")
    assert dataset.train_images.shape == (1437, 32, 32, 3)
    assert dataset.test_images.shape == (360, 32, 32, 3)
    assert dataset.train_images.max() == 255
    shares = np.bincount(dataset.test_labels) / np.bincount(np.concatenate([dataset.train_labels, dataset.test_labels]))
    np.testing.assert_allclose(shares, 0.2, atol=0.01)
    assert not dataset.mirrors
    np.testing.assert_array_equal(dataset.train_images, load_cifar10("digits").train_images)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_any_protocol_and_labels_as_an_array_are_read(protocol):
    rows = np.random.default_rng(0).integers(0, 256, (20, 8), np.uint8)
    for labels in ([1, 2, 300, 70_000], np.array([1, 2]), np.array([3, 4], np.int32)):
        content = pickle.dumps({"data": rows, "labels": labels, "more": (None, True, b"x" * 300)}, protocol=protocol)
        if protocol == 2:  # where Python 3 writes bytes as the call of a function
            content = python_2(rows, labels if isinstance(labels, list) else labels.tolist())
        batch = read_pickled(content)
        np.testing.assert_array_equal(batch[b"data"], rows)
        np.testing.assert_array_equal(batch[b"labels"], labels)


def python_2(rows, labels):
    """The pickle that Python 2 and its NumPy write, as the official files are."""
    state = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + b"".join(b"M" + struct.pack("<H", length) for length in rows.shape)
        + b"\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + (b"T" + struct.pack("<i", rows.size) + rows.tobytes())
        + b"tb"
    )
    numbers = b"".join(b"J" + struct.pack("<i", label) for label in labels)
    return b"\x80\x02}q\x01(U\x04dataq\x02" + state + b"U\x06labelsq\x03](" + numbers + b"eu."


EVIL = {
    "system": b"cos\nsystem\n(S'touch pwned'\ntR.",
    "open": b"cbuiltins\nopen\nU\x05pwnedU\x01w\x86R.",
    "eval in numpy": b"cnumpy.core.multiarray\nscalar\n)R.",
    "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x05touch\x85R.",
    "instance": b"(U\x01xios\nsystem\n.",
    "object": b"(cos\nsystem\nU\x01xo.",
    "new object": b"cnumpy\nndarray\n)\x81.",
    "persistent": b"U\x01xQ.",
    "extension": b"\x82\x01.",
    "memory by a memo": b"}r\xff\xff\xff\x7f.",
    "memory by a length": b"\x96" + struct.pack("<Q", 1 << 60) + b"x.",
    "memory by a shape": python_2(np.zeros((2, 2), np.uint8), [1]).replace(b"M\x02\x00M", b"J\xff\xff\xff\x7fM"),
    "negative shape": python_2(np.zeros((2, 2), np.uint8), [1]).replace(b"M\x02\x00M", b"J\xff\xff\xff\xffM"),
    "objects": python_2(np.zeros((2, 2), np.uint8), [1]).replace(b"u1", b"O8"),
    "state for a function": b"cnumpy\nndarray\n(K\x01K\x01K\x01K\x01K\x01tb.",
    "hash that takes for ever": b")" + b"\x94h\x00\x86" * 60 + b"}h\x00K\x01s.",
    "deep": b"(" * 200_000 + b"l" * 200_000 + b".",
    "operations without end": b"]" * (1 << 25),
    "a memo without end": b")" + b"\x94" * (1 << 24),
    "nothing": b"",
    "only an end": b".",
    "no end": b"}",
    "text": b"hello",
}


@pytest.mark.parametrize("name", EVIL)
def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(EVIL[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with pytest.raises(ValueError, match=naming("data_batch_1", "CIFAR-10")) as error:
        load_cifar10(str(tmp_path))
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["data_batch_1"]
    assert time.perf_counter() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300e3


def entry(name, content=b"x", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


BATCH = "cifar-10-batches-py/data_batch_1"
HOSTILE_MEMBERS = {
    "parent": (entry("../escaped"), "'../escaped'"),
    "absolute": (entry("/tmp/escaped"), "'/tmp/escaped'"),
    "inside then out": (entry("cifar-10-batches-py/../../escaped"), "'cifar-10-batches-py/../../escaped'"),
    "symbolic link": (entry(BATCH, b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), f"'{BATCH}'"),
    "hard link": (entry(BATCH, b"", type=tarfile.LNKTYPE, linkname="/etc/passwd"), f"'{BATCH}'"),
    "device": (entry(BATCH, b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5), f"'{BATCH}'"),
    "pipe": (entry(BATCH, b"", type=tarfile.FIFOTYPE), f"'{BATCH}'"),
    "sparse": (entry(BATCH, b"", type=tarfile.GNUTYPE_SPARSE), f"'{BATCH}'"),
    "too large": (entry(BATCH, bytes((1 << 25) + 1)), f"'{BATCH}'.*33,554,433.*33,554,432"),
    "escapes": (entry("\x1b[2J"), r"'\\x1b\[2J'"),
    "long name": (entry("x" * 10_000), "'x{99,}"),
    "endless long names": (entry("x", bytes(4096), type=tarfile.GNUTYPE_LONGNAME), "'x'"),
    "a giant header": (entry("x", bytes(1 << 17), type=tarfile.XHDTYPE), "'x'.*131,072.*65,536"),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", HOSTILE_MEMBERS)
def test_a_hostile_archive_is_refused_and_writes_nothing(tmp_path, name, zipped):
    (info, content), part = HOSTILE_MEMBERS[name]
    path = tmp_path / "folder" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz" if zipped else "w") as archive:
        archive.addfile(info, io.BytesIO(content))
    with pytest.raises(ValueError, match=naming("cifar-10-python.tar.gz", part)):
        load_cifar10(str(path))
    assert [file.name for file in tmp_path.rglob("*")] == ["folder", "cifar-10-python.tar.gz"]


def test_headers_that_tarfile_would_obey_cost_nothing(tmp_path):
    """Global ones, which it copies to every member; maps of sparse files; one within another."""

    def header(kind, text):
        content = f"{len(text) + 4 + len(str(len(text) + 4))} {text}\n".encode()
        return entry("x", content, type=kind)[0].tobuf() + content.ljust(-(-len(content) // 512) * 512, b"\0")

    folder = entry("cifar-10-batches-py", b"", type=tarfile.DIRTYPE)[0].tobuf()
    many = "".join(f"key{number}={number}\n9 k=v" for number in range(3000))[:60_000]
    hostile = {
        "global": header(tarfile.XGLTYPE, many) + folder * 30_000,
        "map": header(tarfile.XHDTYPE, "GNU.sparse.map=x") + entry(BATCH, b"")[0].tobuf(),
        "version": header(tarfile.XHDTYPE, "GNU.sparse.major=1") + entry(BATCH, b"")[0].tobuf(),
        "nested": header(tarfile.XHDTYPE, "a=b") * 3000 + folder,
        "negative": entry(BATCH, b"")[0].tobuf().replace(b"00000000000\0", b"-0000000001\0", 1),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, content in hostile.items():
        path = tmp_path / f"{name}.tar.gz"
        path.write_bytes(gzip.compress(content + bytes(1024)))
        with pytest.raises(ValueError, match=rf"{name}\.tar\.gz") as error:
            load_cifar10(str(path))
        assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300e3


def test_a_member_that_comes_twice_is_refused(official, tmp_path):
    batch = python_layout(official)[BATCH]
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for _ in range(2):
            info, content = entry(BATCH, batch)
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(ValueError, match=naming("a.tar.gz", f"'{BATCH}'")):
        load_cifar10(str(path))


def test_bombs_stop_early(tmp_path):
    """Gigabytes of zeros: behind the members, in a header, and as an archive."""
    zeros = gzip.compress(bytes(1 << 26), 1) * 20
    start = io.BytesIO()
    with tarfile.open(fileobj=start, mode="w") as archive:
        info, content = entry("cifar-10-batches-py/readme.html")
        archive.addfile(info, io.BytesIO(content))
    pax = tarfile.TarInfo("x")
    pax.type, pax.size = tarfile.XHDTYPE, 20 << 26
    bombs = {
        "behind": gzip.compress(start.getvalue()) + zeros,
        "header": gzip.compress(pax.tobuf()) + zeros,
        "zeros": zeros,
    }
    for name, content in bombs.items():
        (tmp_path / name).with_suffix(".tar.gz").write_bytes(content)
    code = (
        "import resource, sys; from pipeline.data import CIFAR10\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    try: CIFAR10(path).train\n"
        "    except ValueError as error: print(error)\n"
        "    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3)"
    )
    words = [sys.executable, "-c", code, *(f"{tmp_path / name}.tar.gz" for name in bombs)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    messages, peaks = done.stdout.splitlines()[::2], done.stdout.splitlines()[1::2]
    # The header names its size; an archive that goes on for ever has none to name.
    for name, part, message in zip(
        bombs, ("unpack|decompress", "1,342,177,280", "unpack|decompress"), messages, strict=True
    ):
        assert_names(message, f"{name}.tar.gz", part)
    # A good archive takes 180 MB of images, twice while they are joined.
    assert all(float(peak) < 600 for peak in peaks)


def claiming(width, height, kind):
    """An image of 32x32 pixels whose header claims another size."""
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
    with pytest.raises(ValueError, match=naming("1.png", "60000x60000", "16,777,216")):
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
    # The coded data of the JPEG end early, but the end mark is there.
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
