"""Tiny ImageNet as it is distributed (Stanford CS231n, 2015): folders of JPEG files and three tables.

wnids.txt                                  the WordNet ids of the classes, one a line
words.txt                                  WordNet id, tab, what people call it, for many more ids
train/<WordNet id>/images/*.JPEG           500 a class
val/images/*.JPEG, val/val_annotations.txt 50 a class; file name, tab, WordNet id, tab, a box
test/images/*.JPEG                         without labels
"""

import json
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from pipeline.errors import InputError
from pipeline.io import archives
from pipeline.io.atomic import make_folder, write_atomically
from pipeline.io.files import read_regular
from pipeline.io.images import list_images
from pipeline.io.strictjson import is_number, read_json

if TYPE_CHECKING:  # The build of the data set needs neither, nor Keras.
    from pipeline.io.hdf5datasetgenerator import HDF5DatasetGenerator
    from pipeline.recipe import Recipe

CHANNELS = ("R", "G", "B")

_MOST_TABLE = 1 << 23  # bytes; the largest, words.txt, has 2.6 million
_MOST_CLASSES = 1 << 16
_TOP = "tiny-imagenet-200"
MEMBERS = re.compile(
    _TOP + r"/(wnids\.txt|words\.txt|val/val_annotations\.txt|(val|test)/images/(val|test)_\d+\.JPEG"
    r"|train/n\d+/(n\d+_boxes\.txt|images/n\d+_\d+\.JPEG))"
)


def download(root: Path, *, url: str, md5: str, size: int, advance: Callable[[int], None]) -> None:
    """Fetch the official archive and unpack it to the folder `root`, which appears whole or not at all.

    `advance` is called with the bytes of each block that came.

    Raises:
        InputError: `root` exists, or the archive can't be had or isn't what is expected.
    """
    if root.exists():
        raise InputError(f"{root} exists already; leave --download out, or name another folder with --data")
    make_folder(root.parent)
    with tempfile.TemporaryDirectory(prefix=f"{root.name}.", suffix=".tmp", dir=root.parent) as staging:
        archive = Path(staging) / "archive.zip"
        archives.download(url, archive, size=size, md5=md5, advance=advance)
        archives.unpack(archive, Path(staging), MEMBERS)
        os.rename(Path(staging) / _TOP, root)


def check_outputs(outputs: Sequence[Path], overwrite: bool) -> None:
    """Raise `InputError` if one of `outputs` exists, unless it may be overwritten."""
    for path in outputs:
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists already; --overwrite replaces what an earlier build wrote")


def read_wordnet_ids(path: Path) -> tuple[str, ...]:
    """The WordNet ids of the classes, sorted.

    Raises:
        InputError: the table is missing or empty, or a line is no id.
    """
    ids = [line.strip() for line in _lines(path) if line.strip()]
    for number, wordnet_id in enumerate(ids, 1):
        if not _is_name(wordnet_id):
            raise InputError(f"{path}, line {number}: {wordnet_id!a} is no WordNet id")
    if len(set(ids)) < len(ids):
        raise InputError(f"{path} names a class twice")
    if len(ids) > _MOST_CLASSES:
        raise InputError(f"{path} names {len(ids):,} classes; expected at most {_MOST_CLASSES:,}")
    if not ids:
        raise InputError(f"{path} is empty; expected the WordNet ids of the classes, one a line")
    if len(ids) < 2:
        raise InputError(f"{path} names one class alone, {ids[0]}; expected at least two")
    return tuple(sorted(ids))


def read_words(path: Path, wordnet_ids: Iterable[str]) -> tuple[str, ...]:
    """What people call each of `wordnet_ids`, in their order.

    Raises:
        InputError: the table is missing, or lacks an id.
    """
    words = dict.fromkeys(wordnet_ids, "")
    for line in _lines(path):
        wordnet_id, _, word = line.partition("\t")
        if wordnet_id in words:
            words[wordnet_id] = word.strip()
    missing = [wordnet_id for wordnet_id in wordnet_ids if not words.get(wordnet_id)]
    if missing:
        raise InputError(f"{path} has no words for class {missing[0]}")
    return tuple("".join(c for c in words[wordnet_id] if c.isprintable()) for wordnet_id in wordnet_ids)


def list_train(folder: Path, wordnet_ids: Iterable[str]) -> tuple[list[str], list[str]]:
    """Paths of the training images, sorted, and the WordNet id of each: the folder below `folder` that it lies in.

    Raises:
        InputError: the folder is missing, a class has no image, or there is a class that `wordnet_ids` lacks.
    """
    (paths,) = list_images(folder)
    start = len(str(folder)) + 1
    ids = [_one_form(path[start:].split("/", 1)[0]) for path in paths]
    expected, found = set(wordnet_ids), set(ids)
    for path, wordnet_id in zip(paths, ids, strict=True):
        if "/" not in path[start:]:
            raise InputError(f"image {path} lies in no class's folder; expected {folder}/<WordNet id>/")
        if wordnet_id not in expected:
            raise InputError(f"image {path} is of class {wordnet_id!a}, which the table of WordNet ids lacks")
    if missing := sorted(expected - found):
        raise InputError(f"{folder / missing[0]} holds no images; expected some of each class in the WordNet ids")
    return paths, ids


def list_val(folder: Path, mappings: Path, wordnet_ids: Iterable[str]) -> tuple[list[str], list[str]]:
    """Paths of the validation images, sorted, and the WordNet id of each, from the table `mappings`.

    Raises:
        InputError: the folder or the table is missing, or they don't match each other or `wordnet_ids`.
    """
    (paths,) = list_images(folder)
    expected, id_of = set(wordnet_ids), {}
    for number, line in enumerate(_lines(mappings), 1):
        name, *rest = line.rstrip("\n").split("\t")
        if not rest:
            raise InputError(f"{mappings}, line {number}: expected file name, tab, WordNet id")
        if name in id_of:
            raise InputError(f"{mappings}, line {number}: {name!a} is mapped twice")
        if rest[0] not in expected:
            raise InputError(
                f"{mappings}, line {number}: class {rest[0]!a} of {name!a} is not in the table of WordNet ids"
            )
        id_of[name] = rest[0]
    names = [_one_form(Path(path).name) for path in paths]
    for name, path in zip(names, paths, strict=True):
        if name not in id_of:
            raise InputError(f"validation image {path} has no line in {mappings}")
    if missing := sorted(id_of.keys() - set(names)):
        raise InputError(f"{mappings} maps {missing[0]!a}, but there is no such image in {folder}")
    return paths, [id_of[name] for name in names]


def write_mean(path: Path, mean: dict[str, float]) -> None:
    """Write the means of the channels R, G and B, 0 to 255, as JSON."""
    write_atomically(path, (json.dumps(mean, indent=1) + "\n").encode())


def read_mean(path: Path) -> dict[str, float]:
    """The means of the channels R, G and B, 0 to 255.

    Raises:
        InputError: the file is missing or holds something else.
    """
    try:
        mean = read_json(path)
    except OSError as error:
        raise InputError(
            f"can't read the mean {path}: {error.strerror}; build the data set first, with build_tiny_imagenet.py"
        ) from error
    except ValueError as error:
        raise InputError(f"the mean {path} is not JSON: {error}; build the data set again") from error
    if not isinstance(mean, dict) or mean.keys() != set(CHANNELS) or not all(map(_is_mean, mean.values())):
        raise InputError(f"the mean {path} doesn't hold R, G and B, 0 to 255; build the data set again")
    return mean


def tiny_imagenet_batches(
    train: Path, val: Path, mean: Path, recipe: "Recipe", *, limit: int | None, holdout: int | None, **options
) -> tuple["HDF5DatasetGenerator", "HDF5DatasetGenerator"]:
    """The training batches, varied as `recipe` says, and the validation batches of what the build wrote.

    Args:
        train, val, mean: the files `train.hdf5`, `val.hdf5` and `mean.json`, which is subtracted: the means of all of
            `train.hdf5`, three numbers, also where a part of it is held out.
        limit: take this many images of each, a fixed choice; all if None, and of those held out.
        holdout: validate on so many images of `train`, a fixed choice, which are not trained on, instead of on `val`.
        options: batch_size, seed and workers (see `Batches`).

    Raises:
        InputError: the data set isn't built, or a file is damaged.
    """
    varied = {"aug": recipe.augmentation(), "mixing": recipe.mixing(), "training": True}
    train_batches = mean_batches(train, mean, limit=limit, holdout=holdout, **varied, **options)
    if holdout is None:
        val_batches = mean_batches(val, mean, limit=limit, **options)
    else:
        val_batches = mean_batches(train, mean, limit=holdout, **options)
    names = [(batches.label_names, batches.class_names) for batches in (train_batches, val_batches)]
    if names[0] != names[1]:
        raise InputError(f"{train} and {val} hold other classes; build the data set again")
    return train_batches, val_batches


def tiny_imagenet_split(
    places: SimpleNamespace, split: str, *, limit: int | None, holdout: int | None, digest: str | None, **options
) -> "HDF5DatasetGenerator":
    """What a network is scored on that was trained with `limit` and `holdout`.

    Args:
        places: the paths `train_hdf5`, `val_hdf5`, `test_hdf5` and `mean` of what the build wrote.
        split: "test" for every test image, "val" for those that training validated on.
        digest: of what it was trained on (see `data_digest`), by which a choice of images is known to be the same.
        options: batch_size and workers (see `Batches`).

    Raises:
        InputError: the data set isn't built, a file is damaged, or other images would be chosen.
    """
    from pipeline.io.batches import check_choice

    if split == "test":
        return mean_batches(places.test_hdf5, places.mean, **options)
    if holdout is None:
        val = mean_batches(places.val_hdf5, places.mean, limit=limit, **options)
    else:
        val = mean_batches(places.train_hdf5, places.mean, limit=holdout, **options)
    if limit is not None or holdout is not None:
        check_choice(mean_batches(places.train_hdf5, places.mean, **options), val, digest)
    return val


def mean_batches(path: Path, mean: Path, **options) -> "HDF5DatasetGenerator":
    """Batches of the HDF5 file `path`, less the mean in the file `mean`; see `HDF5DatasetGenerator` for `options`."""
    from pipeline.io.hdf5datasetgenerator import HDF5DatasetGenerator
    from pipeline.preprocessing import MeanPreprocessor

    channels = read_mean(mean)
    preprocessor = MeanPreprocessor(channels["R"], channels["G"], channels["B"])
    return HDF5DatasetGenerator(path, preprocessors=[preprocessor], **options)


def _lines(path: Path) -> list[str]:
    try:
        return _one_form(read_regular(path, _MOST_TABLE).decode("utf-8-sig")).splitlines()
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file: {error.reason}") from error


def _one_form(text: str) -> str:
    """`text` in one of the forms that Unicode has for a letter with an accent; file systems give back either."""
    return unicodedata.normalize("NFC", text)


def _is_name(text: str) -> bool:
    """Whether `text` may name a folder and be shown on a terminal."""
    return text.isprintable() and not set(text) & set(" /\\") and text not in (".", "..")


def _is_mean(value: object) -> bool:
    return is_number(value) and 0 <= value <= 255
