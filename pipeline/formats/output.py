"""The files of an exported network, and the packages that each format needs. Needs no Keras."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from pipeline.errors import InputError
from pipeline.files.atomic import check_folder, flush, make_folder
from pipeline.utils.text import printable

SUFFIXES = {"keras": ".keras", "saved_model": "", "onnx": ".onnx", "litert": ".tflite"}
"""The suffix of the file of each format; "" for a folder."""

LABELS = "labels.txt"
# What a SavedModel consists of: files and folders.
_SAVED_MODEL = ("saved_model.pb", "fingerprint.pb", "variables", "assets")
_FOLDERS = _SAVED_MODEL[2:]
# TensorFlow itself writes LiteRT's files.
_PACKAGES = {"onnx": ("tf2onnx", "onnx", "onnxruntime"), "litert": ("ai_edge_litert",)}


def check_packages(form: str) -> None:
    """Raise `InputError` if a package that the format `form` needs, beside TensorFlow, is not installed."""
    if missing := [name for name in _PACKAGES.get(form, ()) if find_spec(name) is None]:
        raise InputError(f"format {form} needs {' and '.join(missing)}; install requirements-export.txt")


def labels_of(class_names: Sequence[str]) -> bytes:
    """Return the content of `LABELS`: a name a line in the order of the labels, control characters escaped, UTF-8."""
    return "".join(f"{printable(name)}\n" for name in class_names).encode()


@dataclass(frozen=True)
class Output:
    """The place of an exported network.

    Args:
        folder: the folder that receives the network's files and `LABELS`.
        names: the names that the network gets there: one file, or the parts of a SavedModel.
    """

    folder: Path
    names: tuple[str, ...]

    @classmethod
    def at(cls, path: Path, form: str) -> Self:
        """Return the place that `path` names: a file with the suffix of the format `form`, else a folder.

        Raises:
            InputError: it has the suffix of another format, or is a folder or file where it should not be.
        """
        suffix, found = SUFFIXES[form], path.suffix
        if found and found != suffix and found in SUFFIXES.values():
            expected = f"a file that ends in {suffix}, or a folder" if suffix else "a folder"
            raise InputError(f"{path} has the suffix of another format; for {form} name {expected}")
        is_file = found == suffix != ""
        if os.path.lexists(path) and path.is_dir() == is_file:
            raise InputError(f"{path} is {'a folder' if is_file else 'not a folder'}; name another")
        if is_file:
            return cls(path.parent, (path.name,))
        return cls(path, (f"model{suffix}",) if suffix else _SAVED_MODEL)

    @property
    def model(self) -> Path:
        """The file or folder that the format's runtime opens."""
        return self.folder if self.names == _SAVED_MODEL else self.folder / self.names[0]

    def check(self, labels: bytes, overwrite: bool) -> None:
        """Raise `InputError` if the files can't be written, or exist and `overwrite` is False.

        A file `LABELS` that holds `labels` may exist.
        """
        check_folder(self.folder)
        taken = [path for name in (*self.names, LABELS) if os.path.lexists(path := self.folder / name)]
        for path in taken:
            if path.is_dir() != (path.name in _FOLDERS) or (path.is_dir() and path.is_symlink()):
                raise InputError(f"{path} is in the way; name another place")
            if path.name == LABELS and path.is_file():
                if path.read_bytes() == labels:
                    continue
                if others := self._others():
                    raise InputError(f"{path} is that of another network, {others[0]}; name another place")
            if not overwrite:
                raise InputError(f"{path} already exists; name another place, or replace it with `overwrite`")

    def _others(self) -> list[Path]:
        """Return the networks in the folder that would not be replaced."""
        found = (path for path in sorted(self.folder.iterdir()) if path.name not in self.names)
        return [
            path for path in found if path.name == _SAVED_MODEL[0] or path.suffix in filter(None, SUFFIXES.values())
        ]

    def size(self) -> int:
        """Return the number of bytes of the network's files."""
        paths = [self.folder / name for name in self.names]
        return sum(path.stat().st_size for parent in paths for path in (parent, *parent.rglob("*")) if path.is_file())

    @contextmanager
    def staged(self) -> Iterator["Output"]:
        """Yield a place on the same disk, an empty folder that is removed in the end; `take` moves its files here."""
        there = next(path for path in (self.folder, *self.folder.absolute().parents) if path.is_dir())
        with tempfile.TemporaryDirectory(dir=there, prefix="export.", suffix=".tmp") as folder:
            yield replace(self, folder=Path(folder))

    def take(self, staged: "Output") -> None:
        """Flush the files at `staged` to disk and move them here, in place of earlier ones."""
        for path in staged.folder.rglob("*"):
            flush(path)
        make_folder(self.folder)
        for path in list(staged.folder.iterdir()):
            if path.is_dir():
                shutil.rmtree(self.folder / path.name, ignore_errors=True)
            os.replace(path, self.folder / path.name)
        flush(self.folder)
