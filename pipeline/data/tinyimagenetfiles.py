"""The files of Tiny ImageNet as distributed (Stanford CS231n, 2015), and the build's mean colour.

wnids.txt                                  WordNet ids of the classes, one per line
words.txt                                  WordNet id, tab, words, for many more ids
train/<WordNet id>/images/*.JPEG           500 per class
val/images/*.JPEG, val/val_annotations.txt 50 per class; file name, tab, WordNet id, tab, a box
test/images/*.JPEG                         without labels
"""

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pipeline.data.textfiles import is_name, lines, nfc
from pipeline.errors import InputError
from pipeline.files.atomic import make_folder
from pipeline.io import archives
from pipeline.io.images import list_images

_MAX_CLASSES = 1 << 16
_TOP = "tiny-imagenet-200"
MEMBERS = re.compile(
    _TOP + r"/(wnids\.txt|words\.txt|val/val_annotations\.txt|(val|test)/images/(val|test)_\d+\.JPEG"
    r"|train/n\d+/(n\d+_boxes\.txt|images/n\d+_\d+\.JPEG))"
)


def download(root: Path, *, url: str, md5: str, size: int, advance: Callable[[int], None]) -> None:
    """Download the official archive and unpack it to the folder `root`, which appears complete or not at all.

    Calls `advance` with the number of bytes of each block received.

    Raises:
        InputError: `root` exists, or the archive can't be downloaded or has unexpected content.
    """
    if root.exists():
        raise InputError(f"{root} already exists; name another folder")
    make_folder(root.parent)
    with tempfile.TemporaryDirectory(prefix=f"{root.name}.", suffix=".tmp", dir=root.parent) as staging:
        archive = Path(staging) / "archive.zip"
        archives.download(url, archive, size=size, md5=md5, advance=advance)
        archives.unpack(archive, Path(staging), MEMBERS)
        os.rename(Path(staging) / _TOP, root)


def check_outputs(outputs: Sequence[Path], overwrite: bool) -> None:
    """Raise `InputError` if one of `outputs` exists and `overwrite` is False."""
    for path in outputs:
        if path.exists() and not overwrite:
            raise InputError(f"{path} already exists; use `overwrite` to replace an earlier build")


def read_wordnet_ids(path: Path) -> tuple[str, ...]:
    """Read the WordNet ids of the classes, sorted.

    Raises:
        InputError: the table is missing, has fewer than two or too many ids, or a line is not an id or repeats one.
    """
    ids = [line.strip() for line in lines(path) if line.strip()]
    for number, wordnet_id in enumerate(ids, 1):
        if not is_name(wordnet_id):
            raise InputError(f"{path}, line {number}: {wordnet_id!a} is not a WordNet id")
    if len(set(ids)) < len(ids):
        raise InputError(f"{path} names a class twice")
    if len(ids) > _MAX_CLASSES:
        raise InputError(f"{path} names {len(ids):,} classes; expected at most {_MAX_CLASSES:,}")
    if not ids:
        raise InputError(f"{path} is empty; expected the WordNet ids of the classes, one per line")
    if len(ids) < 2:
        raise InputError(f"{path} names only one class, {ids[0]}; expected at least two")
    return tuple(sorted(ids))


def read_words(path: Path, wordnet_ids: Iterable[str]) -> tuple[str, ...]:
    """Read the words for each of `wordnet_ids`, in their order.

    Raises:
        InputError: the table is missing, or lacks an id.
    """
    words = dict.fromkeys(wordnet_ids, "")
    for line in lines(path):
        wordnet_id, _, word = line.partition("\t")
        if wordnet_id in words:
            words[wordnet_id] = word.strip()
    missing = [wordnet_id for wordnet_id in wordnet_ids if not words.get(wordnet_id)]
    if missing:
        raise InputError(f"{path} has no words for class {missing[0]}")
    return tuple("".join(c for c in words[wordnet_id] if c.isprintable()) for wordnet_id in wordnet_ids)


def list_train(folder: Path, wordnet_ids: Iterable[str]) -> tuple[list[str], list[str]]:
    """List the training images, sorted, and the WordNet id of each, which is its subfolder of `folder`.

    Raises:
        InputError: the folder is missing, a class has no image, or an image's class is not in `wordnet_ids`.
    """
    (paths,) = list_images(folder)
    start = len(str(folder)) + 1
    ids = [nfc(path[start:].split("/", 1)[0]) for path in paths]
    expected, found = set(wordnet_ids), set(ids)
    for path, wordnet_id in zip(paths, ids, strict=True):
        if "/" not in path[start:]:
            raise InputError(f"image {path} is not in a class's folder; expected {folder}/<WordNet id>/")
        if wordnet_id not in expected:
            raise InputError(f"image {path} has class {wordnet_id!a}, which is not in the table of WordNet ids")
    if missing := sorted(expected - found):
        raise InputError(f"{folder / missing[0]} holds no images; expected some of each class")
    return paths, ids


def list_val(folder: Path, mappings: Path, wordnet_ids: Iterable[str]) -> tuple[list[str], list[str]]:
    """List the validation images, sorted, and the WordNet id of each from the table `mappings`.

    Raises:
        InputError: the folder or the table is missing, or they contradict each other or `wordnet_ids`.
    """
    (paths,) = list_images(folder)
    expected, id_of = set(wordnet_ids), {}
    for number, line in enumerate(lines(mappings), 1):
        name, *rest = line.rstrip("\n").split("\t")
        if not rest:
            raise InputError(f"{mappings}, line {number}: expected file name, tab, WordNet id")
        if name in id_of:
            raise InputError(f"{mappings}, line {number}: {name!a} is listed twice")
        if rest[0] not in expected:
            raise InputError(f"{mappings}, line {number}: class {rest[0]!a} of {name!a} is not among the WordNet ids")
        id_of[name] = rest[0]
    names = [nfc(Path(path).name) for path in paths]
    for name, path in zip(names, paths, strict=True):
        if name not in id_of:
            raise InputError(f"validation image {path} has no line in {mappings}")
    if missing := sorted(id_of.keys() - set(names)):
        raise InputError(f"{mappings} lists {missing[0]!a}, which is missing in {folder}")
    return paths, [id_of[name] for name in names]
