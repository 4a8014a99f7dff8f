"""A user's environment: variables, files in the home folder, file systems, ignored signals."""

import errno
import fcntl
import logging
import os
import re
import signal
import subprocess
import sys
from argparse import ArgumentTypeError

import numpy as np
import pytest
from conftest import ROOT, SMALL, assert_identical, assert_same_curves
from messages import assert_names, naming

from pipeline.cli import backend, console, flags
from pipeline.errors import InputError
from pipeline.files import atomic
from pipeline.files.lock import Lock
from pipeline.io import HDF5DatasetWriter
from pipeline.utils.signals import STOPS

BY_HAND = "resnet_cifar10.py"
FOREIGN = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYTHONSAFEPATH": "1",
    "OPENCV_IO_MAX_IMAGE_PIXELS": "100MB",
    "OPENCV_FOR_THREADS_NUM": "many",
    "KERAS_BACKEND": "",
    "KERAS_MAX_EPOCHS": "1",
    "KERAS_MAX_STEPS_PER_EPOCH": "1",
    "KERAS_NNX_ENABLED": "1",
    "TINY_IMAGENET_DIR": "",
}


def test_the_same_numbers_and_plot_come_out_whatever_others_have_set(command, process, tmp_path):
    options = (*SMALL, "--epochs", "2", "--every", "1")
    command(BY_HAND, *options, "-c", "plain", "-o", "plain")
    (tmp_path / "keras").mkdir()
    settings = '{"floatx": "float16", "epsilon": 1, "image_data_format": "channels_first", "nnx_enabled": true}'
    (tmp_path / "keras" / "keras.json").write_text(settings)
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nlines.linewidth: 20\nbackend: none of these\n")
    process(BY_HAND, *options, "-c", "other", "-o", "other", **FOREIGN, KERAS_HOME=str(tmp_path / "keras"))
    assert_identical(tmp_path / "plain" / "epoch_2.hdf5", tmp_path / "other" / "epoch_2.hdf5")
    assert_same_curves(tmp_path / "plain", tmp_path / "other")
    assert (tmp_path / "keras" / "keras.json").read_text() == settings


@pytest.mark.parametrize("name", ["torch", "theano", "openvino", 3])
def test_another_backend_is_refused_by_the_name_of_where_it_was_set(monkeypatch, tmp_path, name):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", "")
    assert backend.choose_backend() == "tensorflow"
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    assert backend.choose_backend() == "jax"
    (tmp_path / "keras.json").write_text(f'{{"backend": {str(name) if name == 3 else chr(34) + name + chr(34)}}}')
    with pytest.raises(InputError, match=naming(str(tmp_path / "keras.json"), rf"\b{name}\b", "tensorflow", "jax")):
        backend.choose_backend()
    monkeypatch.setenv("KERAS_BACKEND", str(name))
    with pytest.raises(InputError, match=naming("KERAS_BACKEND", f"'{name}'", "tensorflow", "jax")):
        backend.choose_backend()
    for other in ("[]", "x", "{}"):
        (tmp_path / "keras.json").write_text(other)
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
        assert backend.choose_backend() == "tensorflow"


def test_a_library_that_aborts_while_it_loads_says_why(process, tmp_path):
    (tmp_path / "fake" / "tensorflow").mkdir(parents=True)
    reason = "The TensorFlow library was compiled to use AVX instructions"
    abort = f"import os; os.write(2, {reason.encode()!r}); os.abort()"
    (tmp_path / "fake" / "tensorflow" / "__init__.py").write_text(abort)
    done = process(BY_HAND, *SMALL, code=-signal.SIGABRT, PYTHONPATH=str(tmp_path / "fake"))
    assert reason in done.stderr
    assert done.stderr.count("\n") <= 1


def test_a_plot_that_can_not_be_drawn_costs_no_epoch(command, monkeypatch, tmp_path):
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda *args, **options: (_ for _ in ()).throw(RuntimeError("no font")))
    done = command(BY_HAND, *SMALL, "--epochs", "2", "-c", "c", code=1)
    assert_names(done.stderr, "output/resnet_cifar10.png.*no font")
    assert (tmp_path / "c" / "epoch_2.hdf5").exists()
    assert (tmp_path / "output" / "resnet_cifar10.json").exists()


def raising(code):
    def refuse(*arguments):
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_where_nothing_can_be_locked_it_is_said_once(monkeypatch, caplog, tmp_path, code):
    monkeypatch.setattr(fcntl, "flock", raising(code))
    monkeypatch.setattr(Lock, "_has_warned", False)
    with caplog.at_level(logging.WARNING), Lock(tmp_path) as first, Lock(tmp_path, ".other"):
        first.acquire()
    (record,) = caplog.records
    assert_names(record.getMessage(), str(tmp_path), re.escape(os.strerror(code)))


def test_a_data_file_is_written_without_a_lock_of_the_hdf5_library_s_own(tmp_path):
    """File systems without locks fail with various errors."""
    with HDF5DatasetWriter((1, 2, 2, 3), tmp_path / "a.hdf5") as writer:
        (unfinished,) = tmp_path.iterdir()
        with open(unfinished, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        writer.add(np.zeros((1, 2, 2, 3), np.uint8), [0])


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077])
def test_a_lock_is_for_all_whom_the_umask_lets(tmp_path, mask):
    before = os.umask(mask)
    try:
        with Lock(tmp_path):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / ".lock").stat().st_mode & 0o777 == 0o666 & ~mask


def test_another_user_s_lock_that_one_may_only_read_still_locks(monkeypatch, tmp_path):
    original = os.open

    def refuse_to_write(path, mode, *rest, **options):
        if mode & os.O_RDWR and str(path).endswith(".lock"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return original(path, mode, *rest, **options)

    (tmp_path / ".lock").touch()
    monkeypatch.setattr(os, "open", refuse_to_write)
    with Lock(tmp_path), pytest.raises(InputError, match=naming(str(tmp_path), r"\bprocess\b")):
        Lock(tmp_path).acquire()
    with Lock(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EBADF, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EISDIR])
@pytest.mark.parametrize("name", ["open", "fsync"])
def test_a_folder_that_can_not_be_flushed_is_taken_as_it_is(monkeypatch, tmp_path, name, code):
    original = getattr(os, name)

    def refuse(first, *rest, **options):
        path = os.readlink(f"/proc/self/fd/{first}") if name == "fsync" else first
        return raising(code)() if os.path.isdir(path) else original(first, *rest, **options)

    monkeypatch.setattr(os, name, refuse)
    atomic.write_atomically(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_folder_on_a_failing_disk_is_reported(monkeypatch, tmp_path, code):
    monkeypatch.setattr(os, "fsync", raising(code))
    monkeypatch.setattr(os, "statvfs", raising(errno.EIO))
    with pytest.raises(atomic.WriteError, match=os.strerror(code)):
        atomic.write_atomically(tmp_path / "file", b"content")
    assert not list(tmp_path.iterdir())


def test_a_leading_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert flags.path("~/runs") == "/home/someone/runs"
    assert flags.path("~") == "/home/someone"
    assert flags.path("./~runs") == "./~runs"
    for text in ("~no_such_user/runs", ""):
        with pytest.raises(ArgumentTypeError, match=re.escape(repr(text))):
            flags.path(text)


def test_keras_home_is_found_without_a_home(monkeypatch):
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as if the home folder is unknown
    assert backend.keras_home().is_absolute()


def wait_and_end(ignored, sent):
    """Return the exit code of a process that starts with `ignored` signals and sends itself `sent`."""
    code = (
        "import os; from pipeline.cli import command\n"
        f"command.run(lambda: [os.kill(os.getpid(), number) for number in {list(map(int, sent))}])"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: [signal.signal(number, signal.SIG_IGN) for number in ignored],
    ).returncode


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_ends_a_command_unless_it_was_started_to_ignore_it(number):
    assert wait_and_end([], [number]) == 128 + number
    assert wait_and_end([number], [number]) == 0
    # All other signals still end it.
    assert wait_and_end(set(STOPS) - {number}, STOPS) == 128 + number


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (flags.positive, "1e-30", 1e-30), (flags.positive, "1E-3", 1e-3), (flags.positive, ".5", 0.5),
        (flags.positive, "0_1", None), (flags.positive, "1e-46", None), (flags.positive, "1e-40", None),
        (flags.positive, "1e39", None), (flags.positive, " 1", None), (flags.positive, "\u0661", None),
        (flags.fraction, "0.9999", 0.9999), (flags.fraction, "0.99999999999", None), (flags.count, "1_0", None),
        (flags.count, "\u0663", None), (flags.seed, "+5", 5),
    ],
)  # fmt: skip
def test_a_number_is_what_it_reads_as(kind, text, value):
    if value is None:
        with pytest.raises(ArgumentTypeError, match=re.escape(repr(text))):
            kind(text)
    else:
        assert kind(text) == value


def test_a_value_that_float32_would_change_beyond_its_bounds_is_refused():
    assert np.float32(0.99999999999) == 1.0
    with pytest.raises(ArgumentTypeError, match=naming("'0.99999999999'", "float32")):
        flags.fraction("0.99999999999")


def test_a_long_task_without_a_terminal_prints_a_line_a_minute(capsys, monkeypatch):
    now = iter([0, 30, 61, 100, 122, 180])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now))
    advance = console._progress_lines("building", 1000, "images")
    for amount in (30, 31, 9, 52, 878):
        advance(amount)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "building: 61/1,000 images, 1/s, 16 minutes left",
        "building: 122/1,000 images, 1/s, 15 minutes left",
    ]
