"""Data files: written completely or not at all, read in any order."""

import os
import shutil

import h5py
import keras
import numpy as np
import pytest
from datafile import COUNT, IMAGES, LABELS, write
from messages import (
    EXISTS,
    TRUNCATED,
    naming,
)

from pipeline.callbacks import AsyncCallbackList
from pipeline.errors import InputError
from pipeline.io import Batches, HDF5DatasetGenerator, HDF5DatasetWriter, HDF5Images
from pipeline.io.batches import data_errors
from pipeline.preprocessing import AffineAugmentation, MeanPreprocessor
from pipeline.training import loop


def everything(batches):
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


@pytest.mark.parametrize("buffer_size", [1, 7, 10, 1000])
def test_what_is_added_is_what_lies_in_the_file(tmp_path, buffer_size):
    with h5py.File(write(tmp_path / "data.hdf5", buffer_size=buffer_size)) as file:
        np.testing.assert_array_equal(file["images"][()], IMAGES)
        np.testing.assert_array_equal(file["labels"][()], LABELS)
        assert [name.decode() for name in file["label_names"]] == ["n01", "n02", "n03"]
        assert file["words"][1].decode() == "bee, wasp"
        assert file["images"].dtype == np.uint8
        assert file["images"].chunks is None
        assert file["images"].compression is None
    assert os.listdir(tmp_path) == ["data.hdf5"]


def test_the_same_input_gives_the_same_bytes(tmp_path):
    one, other = write(tmp_path / "one.hdf5"), write(tmp_path / "other.hdf5", step=13, buffer_size=5)
    assert one.read_bytes() == other.read_bytes()


def test_an_existing_file_is_not_overwritten(data):
    content = data.read_bytes()
    with pytest.raises(ValueError, match=naming("data.hdf5", EXISTS)):
        HDF5DatasetWriter(IMAGES.shape, data)
    assert data.read_bytes() == content


def test_fewer_rows_than_promised_leave_no_file(tmp_path):
    writer = HDF5DatasetWriter(IMAGES.shape, tmp_path / "data.hdf5")
    writer.add(IMAGES[:49], LABELS[:49])
    with pytest.raises(ValueError, match=naming("data.hdf5", r"\b49\b", r"\b50\b")):
        writer.close()
    assert os.listdir(tmp_path) == []


def test_more_rows_than_promised_are_refused(tmp_path):
    with HDF5DatasetWriter(IMAGES.shape, tmp_path / "data.hdf5") as writer:
        writer.add(IMAGES, LABELS)
        with pytest.raises(ValueError, match=naming("data.hdf5", r"\b51\b", r"\b50\b")):
            writer.add(IMAGES[:1], LABELS[:1])


def test_closing_twice_is_harmless_and_a_file_that_came_meanwhile_stays(tmp_path):
    with HDF5DatasetWriter(IMAGES.shape, tmp_path / "one.hdf5") as writer:
        writer.add(IMAGES, LABELS)
        writer.close()
    writer = HDF5DatasetWriter(IMAGES.shape, tmp_path / "two.hdf5")
    writer.add(IMAGES, LABELS)
    (tmp_path / "two.hdf5").write_text("mine")
    with pytest.raises(ValueError, match=naming("two.hdf5", EXISTS)):
        writer.close()
    assert (tmp_path / "two.hdf5").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["one.hdf5", "two.hdf5"]


def test_an_error_on_the_way_leaves_no_file(tmp_path):
    with (
        pytest.raises(RuntimeError, match="lost"),
        HDF5DatasetWriter(IMAGES.shape, tmp_path / "data.hdf5"),
    ):
        raise RuntimeError("lost")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("rows", "labels", "parts"),
    [
        (IMAGES[:2].astype(float), LABELS[:2], ["float64", "uint8"]),
        (IMAGES[:2, :4], LABELS[:2], [r"\(2, 4, 10, 3\)", r"\(8, 10, 3\)"]),
        (IMAGES[:2], LABELS[:3], ["labels", r"\(3,\)", r"\b2\b"]),
        (IMAGES[:2], [0.5, 1.0], ["labels", "float64"]),
        (IMAGES[:2], [-1, 0], ["labels", r"\b0\b|negative"]),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path, rows, labels, parts):
    with (
        pytest.raises(ValueError, match=naming(*parts)),
        HDF5DatasetWriter(IMAGES.shape, tmp_path / "data.hdf5") as writer,
    ):
        writer.add(rows, labels)
    assert os.listdir(tmp_path) == []


def test_evaluation_gives_every_image_in_order(data):
    batches = HDF5DatasetGenerator(data, 16, [MeanPreprocessor(3, 2, 1)])
    assert (batches.num_images, batches.epoch, len(batches)) == (COUNT, 0, 4)
    images, labels = everything(batches)
    np.testing.assert_array_equal(images, IMAGES - np.float32([1, 2, 3]))
    np.testing.assert_array_equal(labels, np.eye(3)[LABELS])
    assert batches.class_names == ("ant", "bee, wasp", "cow")
    batches.close()


@pytest.mark.parametrize("workers", [1, 4])
def test_an_epoch_is_the_same_whatever_came_before_and_however_many_workers(data, workers):
    options = {"aug": AffineAugmentation(rotation_range=18, flip="random"), "training": True, "seed": 5}
    straight = HDF5DatasetGenerator(data, 16, **options)
    resumed = HDF5DatasetGenerator(data, 16, **options, workers=workers)
    for epoch in range(4):
        straight.set_epoch(epoch)
        expected = everything(straight)
    resumed.set_epoch(3)
    for ours, theirs in zip(everything(resumed), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(expected[0]) == 48


def test_shuffling_reaches_over_the_whole_file(data):
    batches = HDF5DatasetGenerator(data, 10, training=True, binarize=False)
    images, labels = everything(batches)
    row_of = {image.tobytes(): row for row, image in enumerate(IMAGES.astype(np.float32))}
    rows = np.array([row_of[image.tobytes()] for image in images])
    np.testing.assert_array_equal(np.sort(rows), np.arange(COUNT))
    np.testing.assert_array_equal(labels, LABELS[rows])
    # In a random order, each of the first ten is below 25 with probability 1/2.
    assert 0 < (rows[:10] < 25).sum() < 10


def test_a_choice_of_images_is_read_in_its_order(data):
    whole = HDF5Images(data)
    rows = np.array([40, 3, 17])
    images, labels = everything(Batches(whole.subset(rows), 2))
    np.testing.assert_array_equal(images, IMAGES[rows])
    np.testing.assert_array_equal(labels, np.eye(3)[LABELS[rows]])
    np.testing.assert_array_equal(whole.subset(rows).subset(np.array([2, 0])).read(np.array([1])), IMAGES[[40]])


def test_batches_that_are_closed_leave_those_of_the_same_file(data):
    whole = HDF5Images(data)
    first, second = (Batches(whole.subset(np.arange(5) + start), 2) for start in (0, 5))
    first.close()
    assert len(everything(second)[0]) == 5
    own = HDF5DatasetGenerator(data, 4)
    own.close()
    with pytest.raises(RuntimeError):
        own[0]


def test_the_number_of_classes_may_be_given(data):
    assert HDF5DatasetGenerator(data, 4, classes=7)[0][1].shape == (4, 7)
    with pytest.raises(ValueError, match=naming("data.hdf5", "labels", "classes", r"\b2\b")):
        HDF5DatasetGenerator(data, 4, classes=2)


def test_the_digest_names_the_data(tmp_path, data):
    digest = HDF5Images(data).digest()
    changed = IMAGES.copy()
    changed[30, 0, 0, 0] ^= 1
    assert HDF5Images(write(tmp_path / "same.hdf5")).digest() == digest
    assert HDF5Images(write(tmp_path / "changed.hdf5", changed)).digest() != digest
    assert HDF5Images(write(tmp_path / "labels.hdf5", labels=LABELS[::-1])).digest() != digest


def test_a_file_cut_short_under_a_reader_is_named(tmp_path, data):
    victim = shutil.copy(data, tmp_path / "victim.hdf5")
    batches = HDF5DatasetGenerator(victim, 4)
    os.truncate(victim, 3000)
    with pytest.raises(ValueError, match=naming("victim.hdf5", TRUNCATED)):
        everything(batches)


def test_a_file_cut_short_under_a_training_is_named(tmp_path, data):
    victim = shutil.copy(data, tmp_path / "victim.hdf5")
    batches = HDF5DatasetGenerator(victim, 4)
    model = keras.Sequential([keras.Input(batches.image_shape), keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    os.truncate(victim, 3000)
    with pytest.raises(InputError, match=naming(r"\A.*victim\.hdf5.*\Z", TRUNCATED)):
        loop._fit(model, batches, batches, (0, 1), AsyncCallbackList(add_history=True, model=model))
    named = pytest.raises(InputError, match=naming(r"\A.*victim\.hdf5.*\Z", TRUNCATED))
    with named, data_errors(batches):
        model.evaluate(batches.for_keras(), verbose=0)
