"""The labels of ImageNet's validation images, and readable names of its classes.

The official validation archive doesn't tell the classes. One of three files beside it does:

val_labels.txt                  file name, blank, WordNet id
LOC_val_solution.csv            Kaggle's: ImageId,PredictionString; file name without its extension, WordNet id and box
ILSVRC2012_devkit_t12.tar.gz    the official development kit: numbers of classes in the order of the file names, and a
                                MATLAB table that gives the WordNet id of each number
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

from pipeline.data.textfiles import lines, nfc, text_lines
from pipeline.errors import InputError, as_input_error
from pipeline.files.hdf5 import MAX_TEXT
from pipeline.files.matlabtable import read_table
from pipeline.io.archives import read_tar

_DEVKIT = "ILSVRC2012_devkit_t12/data/"
_TRUTH, _META = f"{_DEVKIT}ILSVRC2012_validation_ground_truth.txt", f"{_DEVKIT}meta.mat"
_MAX_TRUTH, _MAX_META, _MAX_META_UNPACKED, _MAX_DEVKIT = 1 << 23, 1 << 20, 1 << 24, 1 << 26


def label_file(paths: SimpleNamespace) -> Path:
    """Return the file with the labels of the validation images: the first that exists.

    Args:
        paths: the files `val_labels`, `kaggle_labels` and `devkit`.

    Raises:
        InputError: there is none.
    """
    for path in (paths.val_labels, paths.kaggle_labels, paths.devkit):
        if path.exists():
            return path
    raise InputError(
        "the classes of the validation images are unknown; sort the images into folders val/<WordNet id>/, or add "
        f"{paths.val_labels} with a file name and a WordNet id in each line, or Kaggle's {paths.kaggle_labels.name}, "
        f"or the archive {paths.devkit.name}"
    )


def read_labels(paths: SimpleNamespace, names: Sequence[str], classes: Iterable[str]) -> list[str]:
    """Return the WordNet id of each validation image.

    Args:
        paths: see `label_file`.
        names: file names of the images, sorted.
        classes: the WordNet ids of the training images.

    Raises:
        InputError: there is no such file, it is damaged, or it contradicts `names` or `classes`.
    """
    path = label_file(paths)
    if path == paths.val_labels:
        ids = _match(path, names, _listed(path))
    elif path == paths.kaggle_labels:
        ids = _match(path, names, _predicted(path), key=lambda name: PurePosixPath(name).stem)
    else:
        ids = _read_devkit(path, len(names))
    known = set(classes)
    for name, wordnet_id in zip(names, ids, strict=True):
        if wordnet_id not in known:
            raise InputError(f"{path} gives {name!a:.200} the class {wordnet_id!a:.100}, which has no training images")
    return ids


def read_words(path: Path, default: Path, wordnet_ids: Sequence[str]) -> tuple[str, ...]:
    """Return a readable name, such as "tench, Tinca tinca", of each class.

    Args:
        path: a table with a WordNet id, a blank and words in each line; it may be missing.
        default: the table to read in its place; classes that it lacks are named by their id.

    Raises:
        InputError: the table `path` is not text, or lacks a class.
    """
    if not path.exists():
        words = _table_of_words(default)
        return tuple(words.get(wordnet_id, wordnet_id) for wordnet_id in wordnet_ids)
    words = _table_of_words(path)
    for wordnet_id in wordnet_ids:
        if not words.get(wordnet_id):
            raise InputError(f"{path} has no words for class {wordnet_id}")
        if len(words[wordnet_id].encode()) > MAX_TEXT:
            raise InputError(f"{path}: the words of class {wordnet_id} have more than {MAX_TEXT:,} bytes")
    return tuple(words[wordnet_id] for wordnet_id in wordnet_ids)


def _table_of_words(path: Path) -> dict[str, str]:
    words = {}
    for line in lines(path):
        wordnet_id, _, text = line.strip().partition("\t" if "\t" in line else " ")
        words[wordnet_id] = "".join(c for c in text.strip() if c.isprintable())
    return words


def _listed(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines(path), 1):
        line = line.strip()
        name = line[: 1 + max(map(line.rfind, " \t,"))]
        if name:
            yield name.rstrip(" \t,"), line[len(name) :]
        elif line:
            raise InputError(f"{path}, line {number}: expected file name, blank, WordNet id")


def _predicted(path: Path) -> Iterator[tuple[str, str]]:
    table = lines(path)
    if not table or [cell.strip() for cell in table[0].split(",")] != ["ImageId", "PredictionString"]:
        raise InputError(f"{path}, line 1: expected ImageId,PredictionString")
    with as_input_error(csv.Error, f"{path} is not a CSV file: "):
        for number, row in enumerate(csv.reader(table[1:]), 2):
            # Each box is a WordNet id and four coordinates.
            if not row:
                continue
            ids = row[1].split()[::5] if len(row) == 2 else []
            if len(set(ids)) != 1:
                raise InputError(f"{path}, line {number}: expected file name, comma, one WordNet id and its boxes")
            yield row[0].strip(), ids[0]


def _match(
    path: Path, names: Sequence[str], table: Iterable[tuple[str, str]], key: Callable[[str], str] = str
) -> list[str]:
    """Return the id that the `table` of `path` has for each of `names`; it has the `key` of each exactly once."""
    id_of = {}
    for name, wordnet_id in table:
        if name in id_of:
            raise InputError(f"{path} lists {name!a:.200} twice")
        id_of[name] = wordnet_id
    ids = []
    for name in names:
        if key(name) not in id_of:
            raise InputError(f"{path} has no class for the validation image {name!a:.200}")
        ids.append(id_of[key(name)])
    keys = set(map(key, names))
    if unknown := id_of.keys() - keys:
        raise InputError(f"{path} lists {min(unknown)!a:.200}, which is missing in the validation images")
    if len(keys) < len(names):
        raise InputError(f"{path} leaves out extensions, but validation images differ only by theirs; rename them")
    return ids


def _read_devkit(path: Path, count: int) -> list[str]:
    with as_input_error(OSError, f"{path} is not a complete development kit: ", "; download it again"):
        expected = {_TRUTH: _MAX_TRUTH, _META: _MAX_META}
        files = dict(read_tar(path, expected, _MAX_DEVKIT, skip_others=True))
    if missing := [name for name in expected if name not in files]:
        raise InputError(f"{path} lacks {missing[0]}; download it again")
    with as_input_error(ValueError, f"{path}: {_META} is not the table of classes: "):
        table = read_table(files[_META], "synsets", ("ILSVRC2012_ID", "WNID"), _MAX_META_UNPACKED)
    id_of = {}
    for number, wordnet_id in table:
        if not isinstance(number, float) or not isinstance(wordnet_id, str) or number in id_of:
            raise InputError(f"{path}: {_META} repeats a number, or lacks one or its WordNet id; download it again")
        id_of[number] = nfc(wordnet_id)
    numbers = [line.strip() for line in text_lines(files[_TRUTH], f"{path}: {_TRUTH}") if line.strip()]
    if len(numbers) != count:
        raise InputError(f"{path} has labels of {len(numbers):,} validation images; expected {count:,}, one for each")
    for position, number in enumerate(numbers, 1):
        if not (number.isascii() and number.isdigit() and len(number) < 10 and int(number) in id_of):
            raise InputError(f"{path}: {_TRUTH}, line {position}: {number!a:.100} is not the number of a class")
    return [id_of[int(number)] for number in numbers]
