"""A small data set in the layout of Tiny ImageNet."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

IDS = ("n03", "n01", "n02")
TRAIN_PER_CLASS, VAL_PER_CLASS = 62, 5
SMALL = ("--batch_size", "12", "--stages", "1,1", "--filters", "4,8,16")


@pytest.fixture(scope="session")
def layout(tmp_path_factory):
    """Create images of three classes, each with its own colour and noise."""
    import cv2

    root = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)

    def write(path, label):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 100, (64, 64, 3), np.uint8)
        pixels[..., label] += 120
        cv2.imwrite(str(path), pixels)

    mappings = []
    for label, wordnet_id in enumerate(IDS):
        for number in range(TRAIN_PER_CLASS):
            write(root / "train" / wordnet_id / "images" / f"{wordnet_id}_{number}.JPEG", label)
        (root / "train" / wordnet_id / f"{wordnet_id}_boxes.txt").write_text("a_0.JPEG\t0\t0\t9\t9\n")
        for number in range(label, 3 * VAL_PER_CLASS, 3):
            write(root / "val" / "images" / f"val_{number}.JPEG", label)
            mappings.append(f"val_{number}.JPEG\t{wordnet_id}\t0\t0\t9\t9\n")
    for number in range(7):
        write(root / "test" / "images" / f"test_{number}.JPEG", number % 3)
    (root / "val" / "val_annotations.txt").write_text("".join(mappings))
    (root / "wnids.txt").write_text("\n".join(IDS))
    (root / "words.txt").write_text("n00\tentity\nn01\tant\nn02\tbee, wasp\nn03\tcow\nn04\tdog\n")
    return root


@pytest.fixture
def raw(layout, tmp_path):
    """Copy the data set, so that a test may break it."""
    return shutil.copytree(layout, tmp_path / "tiny")


@pytest.fixture(scope="session")
def built(layout, tmp_path_factory):
    """Copy the data set, with data files built from it."""
    root = shutil.copytree(layout, tmp_path_factory.mktemp("built") / "tiny")
    subprocess.run([sys.executable, ROOT / "build_tiny_imagenet.py", "--data", root], check=True, capture_output=True)
    return root
