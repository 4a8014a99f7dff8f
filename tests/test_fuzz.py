"""Randomly mutated files, with a valid seal where the format has one: each is read, or refused in one line.

Each input is read in a process of its own with limited memory and time, so that a crash, a hang or an excessive
allocation is a finding, like a traceback. `make fuzz` takes ten minutes; FUZZ_SECONDS sets the time for each reader. A
failing input is shrunk, reported, and saved in FUZZ_FOUND (default: the temporary folder).
"""

import io
import json
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from forge import BLOCK, reseal
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from imagenetlayout import synsets, val_files
from imagenetlayout import tar as image_archive
from test_shards import write as write_shards

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.history import CURVES, read_history
from pipeline.errors import InputError, as_input_error
from pipeline.files.matlabtable import read_table
from pipeline.files.pickledarrays import read_pickled
from pipeline.io import HDF5Images, archives
from pipeline.io.hdf5datasetwriter import HDF5DatasetWriter
from pipeline.io.shards import Shard

SECONDS = float(os.environ.get("FUZZ_SECONDS", "150"))
READ, REFUSED = 0, 1
MORE_MEMORY = 300  # MB

INTERESTING = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]


@st.composite
def mutations(draw, good, first=0):
    """Generate bytes like `good`, mutated from byte `first` on."""
    content = bytearray(good)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(first, max(first, len(content) - 1)))
        size = draw(st.integers(1, 64))
        match draw(st.sampled_from(["flip", "number", "bytes", "delete", "repeat", "cut"])):
            case "flip":
                if place < len(content):
                    content[place] ^= 1 << draw(st.integers(0, 7))
            case "number":
                width = draw(st.sampled_from([1, 2, 4, 8]))
                number = draw(st.sampled_from(INTERESTING)) % (1 << 8 * width)
                content[place : place + width] = number.to_bytes(width, "little")
            case "bytes":
                content[place : place + size] = draw(st.binary(min_size=size, max_size=size))
            case "delete":
                del content[place : place + size]
            case "repeat":
                content[place:place] = content[place : place + size] * draw(st.integers(1, 40))
            case "cut":
                if draw(st.booleans()):
                    del content[place:]
    return bytes(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def histories(draw):
    """Generate text that resembles a history."""
    numbers = st.lists(st.floats(0, 9), min_size=2, max_size=2)
    run = {
        "script": "train", "arguments": {"lr": 0.1, "stages": [1]}, "data": "0" * 64, "steps": 4, "classes": ["a"],
        "learning_rate_changes": [[1, 0, 0.1]], "versions": {"keras": "3"}, "device": "x",
    }  # fmt: skip
    history = {curve: draw(numbers) for curve in CURVES} | {"run": run}
    for _ in range(draw(st.integers(0, 3))):
        where = draw(st.sampled_from([history, run]))
        where[draw(st.sampled_from(sorted(where)) | st.text(max_size=8))] = draw(JSON)
    return draw(mutations(json.dumps(history).encode()) | st.just(json.dumps(history).encode()))


OPERATIONS = [
    b"(", b")", b"}", b"]", b"\x85", b"\x86", b"\x87", b"t", b"l", b"a", b"e", b"s", b"u", b"R", b"b", b".", b"N",
    b"\x88", b"\x93", b"\x94", b"h\x00", b"q\x00", b"K\x05", b"U\x04data", b"\x8c\x05numpy", b"\x8c\x05dtype",
    b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n",
    b"cnumpy._core.numeric\n_frombuffer\n", b"J\xff\xff\xff\xff", b"U\x02u1", b"cos\nsystem\n", b"T\xff\xff\xff\x7f",
]  # fmt: skip


MAKE_CHECKPOINT = """
import keras, sys
from pathlib import Path
import numpy as np
from pipeline.checkpoints.compiled import check_compiled
from pipeline.checkpoints.folder import CheckpointFolder
from pipeline.nn.conv import ResNet

model = ResNet.build(height=8, width=8, depth=3, classes=2, stages=[1], filters=[4, 8])
model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "categorical_crossentropy", metrics=["accuracy"])
check_compiled(model)
checkpoints = CheckpointFolder(Path(sys.argv[1]).parent)
checkpoints.normalization = np.zeros(3, np.float32)
checkpoints.save(model, 0, 1, checkpoints.mid_epoch(model))
Path(sys.argv[1]).with_name("epoch_0_batch_1.hdf5").rename(sys.argv[1])
"""


def checkpoint_bytes():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "epoch_0.hdf5"
        # In another process, because this one forks a thousand times.
        subprocess.run([sys.executable, "-c", MAKE_CHECKPOINT, path], cwd=ROOT, check=True, capture_output=True)
        return path.read_bytes()


def data_bytes():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.hdf5"
        with HDF5DatasetWriter((6, 4, 4, 3), path) as writer:
            writer.store_class_labels(["a", "b"], ["ant", "bee"])
            writer.add(np.zeros((6, 4, 4, 3), np.uint8), [0, 1] * 3)
        return path.read_bytes()


def shard_bytes():
    with tempfile.TemporaryDirectory() as folder:
        return (write_shards(Path(folder), shards=1) / "val-000-of-001.hdf5").read_bytes()


def tar_bytes():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name in ("a", "b"):
            info = tarfile.TarInfo(name)
            info.size = 700
            archive.addfile(info, io.BytesIO(bytes(700)))
    return file.getvalue()


def read_tar(path):
    members = archives.read_tar(path, {"a": 1000, "b": 1000}, max_bytes=1 << 16)
    assert all(len(content) <= 1000 for _, content in members)


def read_data(path):
    HDF5Images(path, classes=1 << 16).close()


def read_shard(path):
    shard = Shard(path)
    list(shard.check(lambda count: None))
    shard.close()


def read_image_archive(path):
    descriptor = os.open(path, os.O_RDONLY)
    with as_input_error(ValueError, ""):
        for member in archives.tar_members(descriptor, 0, path.stat().st_size):
            assert member.offset + member.size <= path.stat().st_size


def read_matlab(path):
    with as_input_error(ValueError, ""):
        read_table(path.read_bytes(), "synsets", ("ILSVRC2012_ID", "WNID"), 1 << 24)


def plain(path):
    """Leave the file as it is."""


def sealed_data(path):
    place, size = struct.unpack_from("<QQ", path.read_bytes(), 56)
    whole = path.stat().st_size
    reseal(path, spare=BLOCK <= place <= place + size <= whole)


# For each format: its reader, a strategy for inputs, and the preparation of each file.
PICKLE = pickle.dumps({b"data": np.zeros((4, 8), np.uint8), b"labels": [1, 2, 300]}, protocol=3)
READERS = {
    "checkpoint": (read_checkpoint, lambda: mutations(checkpoint_bytes(), BLOCK), reseal),
    "data": (read_data, lambda: mutations(data_bytes(), BLOCK), sealed_data),
    "data without a seal": (read_data, lambda: mutations(data_bytes()), plain),
    "shard": (read_shard, lambda: mutations(shard_bytes(), BLOCK), sealed_data),
    "image archive": (read_image_archive, lambda: mutations(image_archive(val_files())), plain),
    "matlab": (read_matlab, lambda: mutations(synsets()) | mutations(synsets(compressed=False)), plain),
    "pickle": (
        lambda path: read_pickled(path.read_bytes()),
        lambda: mutations(PICKLE) | st.lists(st.sampled_from(OPERATIONS), max_size=40).map(b"".join),
        plain,
    ),
    "tar": (read_tar, lambda: mutations(tar_bytes()), plain),
    "history": (read_history, histories, plain),
}


def outcome(read, path):
    """Read the file `path` in a process of its own; return READ, REFUSED, or a finding."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 30),) * 2)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            read(path)
            code = READ
        except InputError as error:
            code = REFUSED if "\n" not in str(error) else 71
        except OSError:
            code = REFUSED if read is read_tar else 72
        finally:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            os._exit(code if peak < MORE_MEMORY * 1000 else 73)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def fuzz(name, examples, number=0):
    """Try `examples` inputs; return how many were read and how many refused."""
    read, inputs, prepare = READERS[name]
    ends = {READ: 0, REFUSED: 0}
    folder = Path(tempfile.mkdtemp())
    path = folder / "input"

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs())
    def attempt(content):
        path.write_bytes(content)
        if len(content) > 72:
            prepare(path)
        end = outcome(read, path)
        if end not in ends:
            found = Path(os.environ.get("FUZZ_FOUND", folder)) / f"{name.replace(' ', '_')}_{end}"
            found.write_bytes(path.read_bytes())
        assert end in ends, f"ended by {end}; the input is {found}"
        ends[end] += 1

    attempt()
    return ends


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_was_mutated_is_read_or_refused(name):
    ends = fuzz(name, 10)
    assert ends[REFUSED]


@pytest.mark.fuzz
@pytest.mark.parametrize("name", READERS)
def test_fuzz(name, record_property):
    end = time.monotonic() + SECONDS
    total = {READ: 0, REFUSED: 0}
    for number in count(1):
        for key, value in fuzz(name, 1000, number).items():
            total[key] += value
        if time.monotonic() > end:
            break
    record_property("read", total[READ])
    record_property("refused", total[REFUSED])
    print(f"\n{name}: {sum(total.values()):,} inputs, {total[READ]:,} read, {total[REFUSED]:,} refused, no finding")
