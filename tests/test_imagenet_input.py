"""Unusable images, archives and labels of ImageNet."""

import gzip
import io
import os
import shutil
import tarfile
import unicodedata
from contextlib import nullcontext

import numpy as np
import pytest
import scipy.io
from imagenetlayout import (
    IDS,
    NUMBERS,
    VAL,
    as_archives,
    as_folders,
    as_kaggle,
    synsets,
    tar,
    train_files,
    val_files,
    write_devkit,
    write_files,
)
from messages import CORRUPT, MISSING, NOT_REGULAR, REPEATED, TRUNCATED, assert_refused, naming

from config import imagenet_config as config
from pipeline.data.imagenet.inputs import find, locate
from pipeline.data.imagenet.labels import read_words
from pipeline.errors import InputError

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "nécole") for form in ("NFC", "NFD"))


def found(root):
    """Return (class, file name) of the images that `find` finds in each split."""
    paths = config.paths(root)
    splits = find(paths, *locate(paths), lambda *about: nullcontext(lambda amount: None))
    return [
        [
            (wordnet_id, name)
            for wordnet_id, files in zip(split.wordnet_ids, split.files, strict=True)
            for name in files.stored_names()
        ]
        for split in splits
    ]


def refused(root, *parts):
    with pytest.raises(InputError, match=naming(*parts)) as error:
        found(root)
    assert "\n" not in str(error.value)


def changed_archive(root, name, change):
    """Write the training archive again, with the archive of the second class changed."""
    classes = {f"{wordnet_id}.tar": tar(files) for wordnet_id, files in train_files().items()}
    classes[name] = change(classes[f"{IDS[1]}.tar"])
    (root / TRAIN_TAR).write_bytes(tar(classes))


def append(root, name, content=b"x", **fields):
    """Write the validation archive again, with a further member."""
    (root / VAL_TAR).write_bytes(without_end(tar(val_files())) + tar({name: content}, **fields))


def without_end(archive):
    return archive[: -(-len(archive.rstrip(b"\0")) // 512) * 512]


def with_a_hole(archive):
    """Return an archive with zeros in place of its second header, as a download that was interrupted may have."""
    header = archive.index(b"ustar", 600) - 257
    return archive[:header] + bytes(512) + archive[header + 512 :]


def cut(path, size):
    os.truncate(path, path.stat().st_size - size if size > 0 else -size)


@pytest.mark.parametrize(
    ("break_it", "parts"),
    [
        (shutil.rmtree, [r"imagenet\b(?!/)", MISSING, "`data`"]),
        (lambda root: shutil.rmtree(root / "train"), ["imagenet", TRAIN_TAR, "train", "ILSVRC/Data"]),
        (lambda root: shutil.rmtree(root / "val"), ["imagenet", VAL_TAR, "val"]),
        (lambda root: [shutil.rmtree(root / "train" / name) for name in IDS[:2]], [r"\b1\b", r"\b2\b"]),
        (lambda root: shutil.rmtree(root / "train" / IDS[0]), ["val", f"'{IDS[0]}'"]),
        (lambda root: write_files(root / "train" / "n09", {}), ["'n09'", "no images"]),
        (lambda root: write_files(root / "train" / "my class", {"a.JPEG": b"x"}), ["'my class'"]),
        (lambda root: write_files(root / "train", {"a.JPEG": b"x"}), ["train/a.JPEG", "class"]),
        (lambda root: write_files(root / "train" / IDS[0], {"a.gif": b"GIF89a"}), ["a.gif", "GIF"]),
        (lambda root: (root / "train" / "n09").symlink_to("nowhere"), ["train/n09", "link"]),
        (lambda root: (root / "train" / IDS[0] / "a.JPEG").symlink_to("nowhere"), [r"a\.JPEG", "No such file"]),
        (lambda root: [shutil.rmtree(root / "train"), write_files(root / "train", {"n09.tar": b"x"})], [r"n09\.tar"]),
        (lambda root: write_files(root / "train" / IDS[0], {"a.JPEG": b""}), [r"'a\.JPEG'", r"\b0 bytes"]),
        (lambda root: write_files(root / "train" / IDS[0], {"\x1b[2J.JPEG": b"x"}), [r"'\\x1b\[2J\.JPEG'"]),
        (
            lambda root: [write_files(root / "train" / name, {"a.JPEG": b"x"}) for name in (COMPOSED, DECOMPOSED)],
            [r"n\\xe9cole", REPEATED],
        ),
        (
            lambda root: write_files(root / "val" / IDS[0], {f"{COMPOSED}.jpg": b"x", f"{DECOMPOSED}.jpg": b"x"}),
            [IDS[0], r"\.jpg'", REPEATED],
        ),
    ],
)  # fmt: skip
def test_unusable_folders_are_refused(raw_imagenet, break_it, parts):
    break_it(raw_imagenet)
    refused(raw_imagenet, *parts)


@pytest.mark.parametrize(
    ("break_it", "parts"),
    [
        (lambda root: cut(root / TRAIN_TAR, 20_000), [TRAIN_TAR, TRUNCATED]),
        (lambda root: cut(root / TRAIN_TAR, 10_240), [TRAIN_TAR, TRUNCATED]),
        (lambda root: cut(root / TRAIN_TAR, -700), [TRAIN_TAR, TRUNCATED]),
        (lambda root: cut(root / VAL_TAR, 12_000), [VAL_TAR, TRUNCATED]),
        (lambda root: (root / VAL_TAR).write_bytes(b""), [VAL_TAR, TRUNCATED]),
        (lambda root: (root / VAL_TAR).write_bytes(bytes(10_240)), [VAL_TAR, "no images"]),
        (lambda root: (root / VAL_TAR).write_bytes(gzip.compress((root / VAL_TAR).read_bytes())), [VAL_TAR, "tar"]),
        (lambda root: changed_archive(root, f"{IDS[1]}.tar", without_end), [f"'{IDS[1]}.tar'", TRUNCATED]),
        (
            lambda root: changed_archive(root, f"{IDS[1]}.tar", lambda old: old.rstrip(b"\0")),
            [f"'{IDS[1]}.tar'", TRUNCATED],
        ),
        (
            lambda root: changed_archive(root, f"{IDS[1]}.tar", with_a_hole),
            [f"'{IDS[1]}.tar'", CORRUPT],
        ),
        (lambda root: (root / TRAIN_TAR).unlink() or os.mkfifo(root / TRAIN_TAR), [TRAIN_TAR, NOT_REGULAR]),
        (lambda root: append(root, "./"), [r"'\./'|''"]),
        (lambda root: append(root, "\u0958" * 300), ["too long"]),
        (lambda root: changed_archive(root, f"{IDS[1]}.tar", lambda old: bytes(1024)), [f"'{IDS[1]}'", "no images"]),
        (lambda root: changed_archive(root, f"./{IDS[1]}.tar", lambda old: old), [f"'{IDS[1]}'", REPEATED]),
        (lambda root: changed_archive(root, "more.txt", lambda old: old), [r"'more\.txt'", r"\.tar"]),
        (lambda root: append(root, "../a.JPEG"), [r"'\.\./a\.JPEG'"]),
        (lambda root: append(root, "/tmp/a.JPEG"), ["'/tmp/a.JPEG'"]),
        (lambda root: append(root, "a.JPEG", b"", type=tarfile.SYMTYPE, linkname="/a"), [r"'a\.JPEG'", NOT_REGULAR]),
        (lambda root: append(root, "a.JPEG", b"", type=tarfile.LNKTYPE, linkname="b"), [r"'a\.JPEG'", NOT_REGULAR]),
        (lambda root: append(root, "a.JPEG", b"", type=tarfile.FIFOTYPE), [r"'a\.JPEG'", NOT_REGULAR]),
        (lambda root: append(root, "a.JPEG", pax_headers={"GNU.sparse.major": "1"}), ["GNU.sparse.major"]),
        (lambda root: append(root, sorted(VAL)[0]), [f"'{sorted(VAL)[0]}'", REPEATED]),
        (lambda root: append(root, "\x1b[2J"), [r"'\\x1b\[2J'"]),
        (lambda root: append(root, "a.JPEG", b""), [r"'a\.JPEG'", r"\b0 bytes"]),
        (lambda root: append(root, "new.JPEG"), [DEVKIT, r"\b7\b", r"\b8\b"]),
        (lambda root: (root / DEVKIT).unlink(), ["val/<WordNet id>", "val_labels.txt", DEVKIT, "LOC_val_solution.csv"]),
        (lambda root: cut(root / DEVKIT, 9), [DEVKIT]),
        (lambda root: (root / DEVKIT).write_bytes(gzip.compress(tar({"a": b""}))), [DEVKIT, "lacks"]),
        (lambda root: write_devkit(root, truth="1\n" * 6), [DEVKIT, r"\b6\b", r"\b7\b"]),
        (lambda root: write_devkit(root, truth="1\n" * 6 + "5\n"), [DEVKIT, r"\b7\b", "'5'"]),
        (lambda root: write_devkit(root, truth="1\n" * 6 + "²\n"), [DEVKIT, r"\b7\b", r"'\\xb2'"]),
        (lambda root: write_devkit(root, truth="1\n" * 6 + "9\n"), [DEVKIT, "'n00001740'", sorted(VAL)[6]]),
        (lambda root: write_devkit(root, NUMBERS | {"n04": 1}), [DEVKIT, "meta.mat", REPEATED]),
        (lambda root: write_devkit(root, meta=floats_for_integers()), [DEVKIT, "meta.mat", "integers"]),
        (lambda root: write_devkit(root, meta=b"x" * 500), [DEVKIT, "meta.mat", "MATLAB"]),
        (lambda root: write_devkit(root, meta=bytes(1 + (1 << 20))), [DEVKIT, "meta.mat", "1,048,577"]),
        (lambda root: write_devkit(root, meta=bomb()), [DEVKIT, "meta.mat", "16,777,216"]),
        (
            lambda root: (root / "val_labels.txt").write_text(f"a.JPEG {IDS[0]}\n"),
            ["val_labels.txt", f"'{sorted(VAL)[0]}'"],
        ),
    ],
)  # fmt: skip
def test_unusable_archives_are_refused(tmp_path, break_it, parts):
    break_it(as_archives(tmp_path / "imagenet"))
    refused(tmp_path / "imagenet", *parts)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda rows: rows[1:], ["line 1", "ImageId"]),
        (lambda rows: rows[:-1], [r"_00000001\.JPEG'"]),
        (lambda rows: [*rows, rows[-1]], ["_00000001'", REPEATED]),
        (lambda rows: [*rows, f"other,{IDS[0]} 1 2 3 4"], ["'other'", MISSING]),
        (lambda rows: [*rows[:-1], rows[-1].replace("n0", "n9")], [r"_00000001\.JPEG'", "'n9"]),
        (lambda rows: [*rows[:-1], rows[-1] + f"{IDS[0]} 1 2 3 4 {IDS[1]} 1 2 3 4"], ["line 8"]),
        (lambda rows: [*rows, "", "other"], ["line 10"]),
    ],
)
def test_unusable_labels_of_kaggle_are_refused(tmp_path, change, parts):
    root = as_kaggle(tmp_path / "imagenet")
    path = root / "LOC_val_solution.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())))
    refused(root, "LOC_val_solution.csv", *parts)


@pytest.mark.parametrize("separator", [" ", "\t", ",", ", "])
def test_a_list_may_separate_by_blank_tab_or_comma(tmp_path, separator):
    root = as_archives(tmp_path / "imagenet")
    lines = [f"{name}{separator}{wordnet_id}" for name, wordnet_id in VAL.items()]
    (root / "val_labels.txt").write_text("\ufeff" + "\r\n".join(reversed(lines)) + "\r\n\n")
    _, val = found(root)
    assert sorted(val) == sorted((wordnet_id, name) for name, wordnet_id in VAL.items())
    (root / "val_labels.txt").write_text("\n".join([*lines[:-1], "alone"]))
    refused(root, "val_labels.txt", "line 7")
    (root / "val_labels.txt").write_bytes(b"\xff\xfe")
    refused(root, "val_labels.txt", "text")


def test_leftovers_of_other_systems_and_folders_in_archives_are_skipped(tmp_path):
    root = as_archives(tmp_path / "imagenet")
    expected = found(root)
    files = {f"./{name}": content for name, content in val_files().items()} | {"./._a.JPEG": b"x", ".DS_Store": b"x"}
    (root / VAL_TAR).write_bytes(tar({"./": b""}, type=tarfile.DIRTYPE)[:512] + tar(files))
    assert found(root) == expected
    folders = as_folders(tmp_path / "folders")
    write_files(folders / "train" / "__MACOSX", {"a.JPEG": b"x"})
    write_files(folders / "train" / IDS[0], {"._a.JPEG": b"x", "boxes.txt": b"x"})
    write_files(folders / "train", {"readme.txt": b"x"})
    assert found(folders) == expected


def test_a_folder_in_an_archive_has_no_content_whatever_its_size(tmp_path):
    root = as_archives(tmp_path / "imagenet")
    expected = found(root)
    folder = tarfile.TarInfo("folder")
    folder.type, folder.size = tarfile.DIRTYPE, 4096
    (root / VAL_TAR).write_bytes(folder.tobuf() + tar(val_files()))
    assert found(root) == expected


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_accented_names_in_archives_are_read_in_either_form(tmp_path, form):
    root = as_archives(tmp_path / "imagenet")
    names = {"é" * 120 + ".JPEG": b"one", "e\u0301.JPEG": b"two"}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=form) as writer:
        for name, content in names.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1.5
            writer.addfile(info, io.BytesIO(content))
    changed_archive(root, f"{IDS[1]}.tar", lambda old: archive.getvalue())
    train, _ = found(root)
    assert [name for wordnet_id, name in train if wordnet_id == IDS[1]] == ["é.JPEG", "é" * 120 + ".JPEG"]


def test_words_come_from_the_table_beside_the_images_else_from_the_project_s(tmp_path):
    paths = config.paths(tmp_path)
    tables = paths.words, paths.default_words
    assert read_words(*tables, (*IDS, "mine")) == ("tench, Tinca tinca", "crane", "crane", "mine")
    paths.words.write_text("mine my  words\nn01440764\tfish\n")
    assert read_words(*tables, (IDS[0], "mine")) == ("fish", "my  words")
    with pytest.raises(InputError, match=naming("LOC_synset_mapping.txt", IDS[1])):
        read_words(*tables, IDS)
    _, *table = config.WORDS.read_text().splitlines()
    assert len(table) == len({line.split()[0] for line in table}) == 1000
    assert table == sorted(table)


def test_a_missing_folder_is_one_line(command, tmp_path):
    assert_refused(command("build_imagenet.py", "--data", tmp_path / "no", code=2), "no", MISSING, "--data")
    assert_refused(
        command("build_imagenet.py", "--data", tmp_path, "--shards", "257", code=2), "--shards", "257", "256"
    )
    assert list(tmp_path.iterdir()) == []


def bomb():
    """Return a MATLAB file of 40 KB that unpacks to 40 MB."""
    file = io.BytesIO()
    scipy.io.savemat(file, {"synsets": np.zeros(5 << 20)}, do_compression=True)
    return file.getvalue()


def floats_for_integers():
    """Return a table whose flags have the type of floating-point numbers."""
    content = bytearray(synsets(compressed=False))
    assert content[136] == 6  # the type of the flags, behind the header and the tag of the array
    content[136] = 9
    return bytes(content)
