"""CIFAR-10 in each official layout, complete and broken."""

import io
import pickle
import tarfile

import numpy as np
import pytest
from conftest import load_cifar10
from messages import MISSING, naming

from pipeline.data import cifar10

FILES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


@pytest.fixture(scope="module")
def official():
    """Return rows and labels of each file: constant images, which compress well."""
    rng = np.random.default_rng(0)
    parts = {}
    for name in FILES:
        labels = rng.integers(0, 10, 10_000)
        # Red is the label; green and blue are the row number.
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
    # Channel 0 is red, the label; row 300 is 44 + 1 * 256.
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
    # Not just the first images, which are all from one file.
    assert not np.array_equal(limited.train_images, whole.train_images[:100])
    assert load_cifar10(folder, 10**6).test_labels.shape == (10_000,)


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
    for start in range(1000, len(content), len(content) // 4):
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
