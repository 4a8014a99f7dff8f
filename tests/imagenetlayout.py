"""ImageNet with three classes, in each layout in which it is distributed."""

import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from conftest import ROOT
from PIL import Image

BUILD = "build_imagenet.py"
IDS = ("n01440764", "n02012849", "n03126707")
# The numbers that the development kit gives them, not in the order of the ids; 9 is a group of classes.
NUMBERS = {"n03126707": 1, "n01440764": 2, "n02012849": 3, "n00001740": 9}
TRAIN_PER_CLASS = 5
VAL = {f"ILSVRC2012_val_{number:08}.JPEG": IDS[number * 2 % 3] for number in range(1, 8)}


def picture(number, height, width):
    """Return smooth colours, which compress like a photograph."""
    small = np.random.default_rng(number).integers(0, 256, (5, 6, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(pixels, *options):
    return cv2.imencode(".jpg", pixels, options)[1].tobytes()


def unusual():
    """Return files that are in ImageNet and surprise readers: gray, CMYK, PNG, turned by EXIF, progressive."""
    pixels = picture(99, 40, 60)
    cmyk, turned = io.BytesIO(), io.BytesIO()
    Image.fromarray(pixels).convert("CMYK").save(cmyk, "JPEG", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(turned, "JPEG", exif=exif)
    return [
        jpeg(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)),
        cmyk.getvalue(),
        cv2.imencode(".png", pixels)[1].tobytes(),
        turned.getvalue(),
        jpeg(pixels, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    ]


def train_files():
    """Return the training files by class and name."""
    files = {
        wordnet_id: {
            f"{wordnet_id}_{number}.JPEG": jpeg(picture(10 * label + number, 30 + 9 * number, 50 + 7 * label))
            for number in range(TRAIN_PER_CLASS)
        }
        for label, wordnet_id in enumerate(IDS)
    }
    files[IDS[1]] = dict(zip(files[IDS[1]], unusual(), strict=True))
    return files


def val_files():
    """Return the validation files by name."""
    return {name: jpeg(picture(200 + number, 33, 44 + number)) for number, name in enumerate(VAL)}


def as_folders(root):
    for wordnet_id, files in train_files().items():
        write_files(root / "train" / wordnet_id, files)
    for name, content in val_files().items():
        write_files(root / "val" / VAL[name], {name: content})
    return root


def as_archives(root, **options):
    """Write the official archives; the order of their members is not that of the names."""
    root.mkdir(parents=True, exist_ok=True)
    classes = {f"{name}.tar": tar(dict(reversed(files.items()))) for name, files in reversed(train_files().items())}
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar(classes))
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar(dict(reversed(val_files().items()))))
    write_devkit(root, **options)
    return root


def as_kaggle(root):
    images = root / "ILSVRC" / "Data" / "CLS-LOC"
    for wordnet_id, files in train_files().items():
        write_files(images / "train" / wordnet_id, files)
    write_files(images / "val", val_files())
    write_files(images / "test", {"ILSVRC2012_test_00000001.JPEG": b"not read"})
    # Some images have several boxes.
    rows = [
        f"{name.removesuffix('.JPEG')},{f'{wordnet_id} 1 2 3 4 ' * (1 + number % 2)}"
        for number, (name, wordnet_id) in enumerate(VAL.items())
    ]
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *reversed(rows)]) + "\n")
    words = "n01440764 tench, Tinca tinca\nn02012849 crane\nn03126707 crane\nn09999999 more\n"
    (root / "LOC_synset_mapping.txt").write_text(words)
    return root


def write_files(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def tar(files, **fields):
    """Return an uncompressed tar archive of `files`, in their order; `fields` change the members."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as writer:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            writer.addfile(info, io.BytesIO(content))
    return archive.getvalue()


def synsets(numbers=NUMBERS, compressed=True):
    """Return a table of classes as the development kit has it: a structure array in a MATLAB file."""
    columns = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children")
    table = np.empty((len(numbers), 1), [(column, object) for column in columns])
    for row, (wordnet_id, number) in enumerate(numbers.items()):
        table[row, 0] = (float(number), wordnet_id, "some words", "a definition", 0.0, np.array([1.0, 2.0]))
    file = io.BytesIO()
    scipy.io.savemat(file, {"synsets": table}, do_compression=compressed)
    return file.getvalue()


def write_devkit(root, numbers=NUMBERS, truth=None, meta=None):
    """Write the development kit; `truth` and `meta` replace its files."""
    truth = "".join(f"{numbers[VAL[name]]}\n" for name in VAL) if truth is None else truth
    folder = "ILSVRC2012_devkit_t12"
    files = {
        f"{folder}/readme.txt": b"",
        f"{folder}/data/meta.mat": synsets(numbers) if meta is None else meta,
        f"{folder}/data/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
        f"{folder}/evaluation/demo.m": b"x" * 3000,
    }
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        directory = tarfile.TarInfo(folder)
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory) -> Path:
    """Return ImageNet in folders, to be read only."""
    return as_folders(tmp_path_factory.mktemp("imagenet") / "imagenet")


@pytest.fixture
def raw_imagenet(imagenet, tmp_path):
    """Copy ImageNet, so that a test may break it."""
    return shutil.copytree(imagenet, tmp_path / "imagenet")


def content(folder):
    """Return the bytes of all files in a folder by their name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


@pytest.fixture(scope="session")
def shards(imagenet, tmp_path_factory):
    """Return a folder with two shards of each split."""
    folder = tmp_path_factory.mktemp("shards")
    words = [sys.executable, ROOT / BUILD, "--data", imagenet, "--output", folder, "--shards", "2"]
    subprocess.run(words, check=True, capture_output=True)
    return folder
