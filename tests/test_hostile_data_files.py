"""A stranger's data files, and damaged ones."""

import os

import h5py
import numpy as np
import pytest
from datafile import COUNT, IMAGES, LABELS
from forge import forge
from messages import (
    CORRUPT,
    MISSING,
    NOT_CONTIGUOUS,
    NOT_REGULAR,
    UNEXPECTED,
    naming,
)

from pipeline.io import HDF5DatasetGenerator, HDF5Images


def replace(key, **options):
    def change(file):
        del file[key]
        file.create_dataset(key, **options)

    return change


def strange(key, dtype, file_image=None):
    """Store `key` in another layout."""

    def change(file):
        shape = file[key].shape
        del file[key]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_external(str(file.filename).encode() + b".raw", 0, h5py.h5f.UNLIMITED)
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(file.id, key.encode(), h5py.h5t.py_create(np.dtype(dtype)), space, properties)

    return change


def virtual(file):
    layout = h5py.VirtualLayout(IMAGES.shape, np.uint8)
    layout[:] = h5py.VirtualSource("other.hdf5", "images", IMAGES.shape)
    del file["images"]
    file.create_virtual_dataset("images", layout)


def linked(link):
    def change(file):
        file["group/labels"] = file["labels"]
        del file["labels"]
        file["labels"] = link

    return change


def name_classes(names):
    return replace("label_names", data=np.array([name.encode() for name in names]))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda file: file.attrs.pop("complete"), ["complete", MISSING]),
        (lambda file: file.attrs.modify("complete", False), ["not (marked )?complete|incomplete|complete is False"]),
        (lambda file: file.attrs.create("complete", "yes"), ["complete", "truth|bool"]),
        (lambda file: file.pop("images"), ["images", MISSING]),
        (lambda file: file.pop("labels"), ["labels", MISSING]),
        (lambda file: file.create_dataset("more", data=1), ["'more'", UNEXPECTED]),
        (lambda file: file.create_group("group"), ["'group'", UNEXPECTED]),
        (replace("images", data=IMAGES.astype(np.float32)), ["images", "float32"]),
        (replace("images", data=IMAGES[:, 0]), ["images", r"\(50, 10, 3\)"]),
        (replace("images", data=IMAGES, chunks=(5, 8, 10, 3)), ["images", NOT_CONTIGUOUS]),
        (replace("images", data=IMAGES, chunks=(5, 8, 10, 3), compression="gzip"), ["images", NOT_CONTIGUOUS]),
        (replace("images", shape=IMAGES.shape, dtype=np.uint8), ["images", r"\b12,000\b"]),
        (
            replace("images", shape=(1 << 20, 1 << 10, 1 << 10, 3), dtype=np.uint8),
            ["images", r"\b3,298,534,883,328\b"],
        ),
        (strange("images", "u1"), ["images", "external|another file"]),
        (virtual, ["images", "virtual|other datasets"]),
        (replace("labels", data=LABELS[:-1]), ["labels", r"\(49,\)", r"\(50,?\)"]),
        (replace("labels", data=LABELS.astype(np.float32)), ["labels", "float32"]),
        (replace("labels", data=LABELS, chunks=(5,), shuffle=True), ["labels", NOT_CONTIGUOUS]),
        (replace("labels", data=LABELS + 1), ["labels", r"\b1\b", r"\b3\b", r"\b0\b", r"\b2\b"]),
        (replace("labels", data=LABELS - 1), ["labels", r"\B-1\b", r"\b1\b", r"\b0\b", r"\b2\b"]),
        (strange("labels", "i8"), ["labels", "external|another file"]),
        (linked(h5py.SoftLink("/group/labels")), ["labels", "link"]),
        (linked(h5py.ExternalLink("/etc/passwd", "labels")), ["labels", "link"]),
        (name_classes(["n01", "\x1b[2J", "n03"]), ["label_names", r"'\\x1b\[2J'"]),
        (name_classes(["n01", "n02"]), ["words", r"\(3,\)", r"\(2,?\)"]),
        (name_classes(["n01", "n" * 2000, "n03"]), ["label_names", "S2000"]),
        (replace("words", data=["ant", "bee", "cow"], dtype=h5py.string_dtype()), ["words", r"\bobject\b|string"]),
        (lambda file: file["images"].attrs.create("sha256", np.bytes_("0" * 65)), ["sha256", "/images", r"\b64\b"]),
        (lambda file: file["images"].attrs.create("sha256", "0" * 64), ["sha256", "/images", r"\b64\b"]),
        (lambda file: file["images"].attrs.create("more", 1), ["/images", "attributes", "sha256"]),
        (lambda file: file.attrs.create("more", 1), ["attributes", "complete"]),
        (
            lambda file: file.attrs.create("complete", np.ones(3, bool)),
            ["attribute", "complete", "one value|scalar|single|shape"],
        ),
        (lambda file: file.create_dataset("labels2", data=np.zeros(1 << 18)), ["'labels2'", UNEXPECTED]),
    ],
)
def test_a_stranger_s_file_is_held_to_the_form(data, change, parts):
    forge(data, change, images="images")
    with pytest.raises(ValueError, match=naming("data.hdf5", *parts)) as error:
        HDF5DatasetGenerator(data, 4)
    assert "\n" not in str(error.value)


def test_a_forged_file_without_a_change_is_taken(data):
    forge(data, lambda file: None, images="images")
    assert HDF5DatasetGenerator(data, 4).num_images == COUNT


def test_any_change_outside_of_the_images_is_noticed_at_once_and_inside_by_their_digest(data):
    whole = data.read_bytes()
    dataset = HDF5Images(data)
    images = range(dataset.offset, dataset.offset + IMAGES.size)
    for place in range(0, len(whole), 61):
        data.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        if place in images:
            with pytest.raises(ValueError, match=naming("data.hdf5", "digest|SHA-256", "images")):
                HDF5Images(data).check_images(lambda count: None)
        else:
            with pytest.raises(ValueError, match=naming("data.hdf5", f"{CORRUPT}|data file|not an? ")):
                HDF5Images(data)


def test_a_file_that_is_cut_short_missing_or_something_else_is_refused(tmp_path, data):
    whole = data.read_bytes()
    for size in (0, 100, 512, len(whole) // 2, len(whole) - 1):
        (tmp_path / "short.hdf5").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"short\.hdf5"):
            HDF5DatasetGenerator(tmp_path / "short.hdf5", 4)
    with pytest.raises(ValueError, match=naming("nowhere.hdf5", MISSING)):
        HDF5DatasetGenerator(tmp_path / "nowhere.hdf5", 4)
    with pytest.raises(ValueError, match="Is a directory"):
        HDF5DatasetGenerator(tmp_path, 4)
    os.mkfifo(tmp_path / "pipe.hdf5")
    with pytest.raises(ValueError, match=naming("pipe.hdf5", NOT_REGULAR)):
        HDF5DatasetGenerator(tmp_path / "pipe.hdf5", 4)
