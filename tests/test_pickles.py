"""CIFAR-10's pickles: those of Python 2 and 3, and hostile ones."""

import pickle
import resource
import struct
import time

import numpy as np
import pytest
from conftest import load_cifar10
from messages import naming

from pipeline.files.pickledarrays import read_pickled


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_any_protocol_and_labels_as_an_array_are_read(protocol):
    rows = np.random.default_rng(0).integers(0, 256, (20, 8), np.uint8)
    for labels in ([1, 2, 300, 70_000], np.array([1, 2]), np.array([3, 4], np.int32)):
        content = pickle.dumps({"data": rows, "labels": labels, "more": (None, True, b"x" * 300)}, protocol=protocol)
        if protocol == 2:  # Python 3 pickles bytes as a function call there
            content = python_2(rows, labels if isinstance(labels, list) else labels.tolist())
        batch = read_pickled(content)
        np.testing.assert_array_equal(batch[b"data"], rows)
        np.testing.assert_array_equal(batch[b"labels"], labels)


def python_2(rows, labels):
    """Return the pickle that Python 2 and its NumPy write, like the official files."""
    state = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + b"".join(b"M" + struct.pack("<H", length) for length in rows.shape)
        + b"\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + (b"T" + struct.pack("<i", rows.size) + rows.tobytes())
        + b"tb"
    )
    numbers = b"".join(b"J" + struct.pack("<i", label) for label in labels)
    return b"\x80\x02}q\x01(U\x04dataq\x02" + state + b"U\x06labelsq\x03](" + numbers + b"eu."


class Payload:
    def __reduce__(self):
        return (open, ("pwned", "w"))


def test_a_pickle_that_names_a_function_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": Payload(), b"labels": []}))
    with pytest.raises(ValueError, match=naming("data_batch_1", r"\bopen\b")):
        load_cifar10(str(tmp_path))
    assert not (tmp_path / "pwned").exists()


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
