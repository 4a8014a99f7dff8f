"""The examples of docs/extend.md, in a copy of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT, assert_identical
from messages import assert_names

import pipeline.io
from pipeline.data import DataSource
from pipeline.io import ArrayImages, Batches
from pipeline.preprocessing import MeanImagePreprocessor

TEXT = (ROOT / "docs" / "extend.md").read_text()
FILES = dict(re.findall(r"^`([\w/]+\.py)`:\n\n```python\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE))
(TABLE, LINE) = re.search(r"`DATASETS` in `([\w/]+\.py)`:\n\n```python\n(.*?)```", TEXT, re.DOTALL).groups()
SCRIPT = re.search(r"```sh\n(sed .*?)\n```", TEXT)[1]
SMALL = ("--stages", "1,1", "--filters", "4,8,16", "--batch_size", "14", "--epochs", "2", "--every", "1")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Copy the project, add the data set of the example, and create images."""
    project = tmp_path_factory.mktemp("project")
    for part in ("pipeline", "config"):
        shutil.copytree(ROOT / part, project / part, ignore=shutil.ignore_patterns("__pycache__"))
    for script in ROOT.glob("*.py"):
        shutil.copy(script, project)
    for path, content in FILES.items():
        (project / path).write_text(content)
    table = (project / TABLE).read_text()
    (project / TABLE).write_text(table.replace("DATASETS = {\n", f"DATASETS = {{\n{LINE}"))
    subprocess.run(SCRIPT, cwd=project, shell=True, check=True)  # noqa: S602  (the documented command)
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 3)):
        for number in range(7):
            folder = project / "faces" / split / f"expression {number}"
            folder.mkdir(parents=True)
            for image in range(count):
                cv2.imwrite(str(folder / f"{image}.png"), rng.integers(0, 256, (48, 48, 3), np.uint8))
    return project


def run(project, *words, code=0):
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=project, capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


# Run several command lines in one process, one after the other: TensorFlow takes seconds to load.
IN_TURN = """
import json, runpy, sys
for words in json.loads(sys.argv[1]):
    sys.argv = words
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        assert not end.code, words
"""


def test_the_example_is_short():
    assert set(FILES) == {"pipeline/data/faces.py", "config/faces_config.py"}
    assert sum(text.count("\n") for text in (*FILES.values(), LINE, SCRIPT + "\n")) <= 40


def test_a_data_set_added_by_the_book_trains_stops_resumes_and_is_ranked(project):
    faults, flags = ROOT / "tests" / "faults.py", ("--data", "faces", *SMALL)
    stopped = run(project, faults, "SIGTERM", "3", project / "resnet_faces.py", *flags, code=143)
    assert "epoch_0_batch_3.hdf5" in stopped
    checkpoint = "output/resnet_faces/checkpoints/epoch_2.hdf5"
    lines = (
        ("resnet_faces.py", *flags, "-c", "straight", "-o", "straight"),
        ("resnet_faces.py", "--model", "latest"),
        ("rank_accuracy.py", "--model", checkpoint, "--tta", "flip"),
    )
    done = run(project, "-c", IN_TURN, json.dumps(lines))
    assert_names(done, r"\b56\b.*\b21\b.*\b4\b")
    assert done.count("epoch 2/2") == 2
    assert_identical(project / "straight" / "epoch_2.hdf5", project / checkpoint)
    assert re.search(r"images: 21\nrank-1: [\d.]+%\nrank-5: [\d.]+%\nrank-1, .*: [\d.]+%\n", done)


def test_the_augmentation_of_the_example_varies_images():
    names = {}
    exec(re.search(r"```python\n(from pipeline.utils import randomness.*?)```", TEXT, re.DOTALL)[1], names)  # noqa: S102
    images = ArrayImages(np.full((8, 6, 6, 3), 200, np.uint8), np.zeros(8, int), ["a"])
    one, other = (Batches(images, 8, aug=names["Darken"](), training=True, workers=count)[0][0] for count in (1, 3))
    np.testing.assert_array_equal(one, other)
    assert len({image.mean() for image in one}) > 4
    assert 100 <= one.min() <= one.max() <= 200


def test_the_source_of_data_files_of_the_example_gives_batches(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"images": np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((48, 48, 3), np.uint8)}
    names |= {"labels": np.arange(6) % 2, "np": np, "Path": Path, "cached_property": cached_property}
    names |= {name: getattr(pipeline.io, name) for name in pipeline.io.__all__}
    names |= {"DataSource": DataSource, "MeanImagePreprocessor": MeanImagePreprocessor}
    for start in ("class Faces\\(DataSource", "with HDF5DatasetWriter"):
        exec(re.search(rf"```python\n({start}.*?)```", TEXT, re.DOTALL)[1], names)  # noqa: S102
    (tmp_path / "test.hdf5").write_bytes((tmp_path / "train.hdf5").read_bytes())
    source = names["Faces"](tmp_path)
    assert source.class_names == ("angry", "happy")
    images, _ = source.val_batches(6)[0]
    np.testing.assert_array_equal(images[:, 0, 0, 0], np.arange(6) - 2.5)
