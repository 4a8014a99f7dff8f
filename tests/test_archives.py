"""Hostile archives of CIFAR-10."""

import gzip
import io
import pickle
import resource
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from conftest import ROOT, load_cifar10
from messages import assert_names, naming


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
    """Headers that tarfile copies to every member; maps of sparse files; nested headers."""

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


def test_a_member_that_comes_twice_is_refused(tmp_path):
    batch = pickle.dumps({b"data": np.zeros((10_000, 3072), np.uint8), b"labels": [0] * 10_000}, protocol=3)
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for _ in range(2):
            info, content = entry(BATCH, batch)
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(ValueError, match=naming("a.tar.gz", f"'{BATCH}'")):
        load_cifar10(str(path))


def test_bombs_stop_early(tmp_path):
    """Gigabytes of zeros after the members, in a header, and as the archive."""
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
    # The header names a size; an endless archive can't.
    for name, part, message in zip(
        bombs, ("unpack|decompress", "1,342,177,280", "unpack|decompress"), messages, strict=True
    ):
        assert_names(message, f"{name}.tar.gz", part)
    # A good archive takes 180 MB for its images, twice that while they are joined.
    assert all(float(peak) < 600 for peak in peaks)
