"""Tiny ImageNet: paths, split, network, recipes, and both ways of training."""

from pathlib import Path
from types import SimpleNamespace

# The folder of the data set, unless --data or the environment variable names another.
DATA = "datasets/tiny-imagenet-200"
DATA_VARIABLE = "TINY_IMAGENET_DIR"
DATA_HELP = f"folder of Tiny ImageNet, or the build's --output (default: ${DATA_VARIABLE} if set, else {DATA})"

# Paths in the data set as distributed.
PARTS = {
    "train_images": "train",
    "val_images": "val/images",
    "val_mappings": "val/val_annotations.txt",
    "unlabelled_images": "test/images",
    "wordnet_ids": "wnids.txt",
    "word_labels": "words.txt",
}

# Files of the build, in the subfolder `BUILT` or in the build's --output.
BUILT = "hdf5"
BUILT_PARTS = {
    "train_hdf5": "train.hdf5",
    "val_hdf5": "val.hdf5",
    "test_hdf5": "test.hdf5",
    "mean": "mean.json",
}

ARCHIVE = {
    "url": "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "md5": "90528d7ca1a48142e341f4ef8d21d0de",
    "size": 248_100_043,
}

# The labels of the official test images were never published: the test set is this many training images of each class.
TEST_IMAGES_PER_CLASS = 50
SPLIT_SEED = 42

# The input of the network, and its stem.
IMAGES = {"height": 64, "width": 64, "depth": 3, "dataset": "tiny_imagenet"}

# Classes of the full data set. The scripts count the classes in the data.
CLASSES = 200

NETWORK = {"stages": (3, 4, 6), "filters": (64, 128, 256, 512)}

# The 2018 runs. Rotation and shear are in degrees, zoom z means factors from 1 - z to 1 + z, shifts are fractions of
# width and height. Values that a recipe doesn't name are off; see --help.
PUBLISHED = {
    "schedule": "poly",
    "nesterov": True,
    "reg": 1e-4,
    "rotation_range": 18.0,
    "zoom_range": 0.15,
    "width_shift_range": 0.2,
    "height_shift_range": 0.2,
    "shear_range": 0.15,
    "flip": "random",
}

# The same network with later techniques; see docs/recipes.md.
MODERN = {
    "schedule": "cosine",
    "warmup_epochs": 1,
    "nesterov": True,
    "reg": 2.5e-4,
    "pad_crop": 8,
    "flip": "alternate",
}

RECIPES = {"published": PUBLISHED, "modern": MODERN}

# Learning rate by hand. Published: 0.1 up to epoch 30, 0.01 up to 50, 0.001 up to 70.
BY_HAND = NETWORK | {"epochs": 70, "batch_size": 64, "lr": 0.1, "momentum": 0.9, "schedule": "constant"}

# Decay from 0.1 to 0. Published: linear.
DECAY = NETWORK | {"epochs": 75, "batch_size": 64, "lr": 0.1, "momentum": 0.9}

CHECKPOINTS = "output/train/checkpoints"
MODEL = "output/resnet_tinyimagenet_decay.hdf5"


def files(data: str | None = None) -> dict[str, Path]:
    """Return the paths of the built files, by the names "train", "val", "test" and "mean"."""
    return {name.removesuffix("_hdf5"): getattr(paths(data), name) for name in BUILT_PARTS}


def paths(data: str | None = None, output: str | None = None) -> SimpleNamespace:
    """Return the paths of the data set's `root` folder, its `PARTS` and the `BUILT_PARTS`, by name.

    Args:
        data: the flag --data: the data set as distributed, or a folder that holds the built files.
        output: another folder for the built files.
    """
    root = Path(data or DATA)
    built = Path(output) if output else root if (root / BUILT_PARTS["mean"]).exists() else root / BUILT
    return SimpleNamespace(
        root=root,
        **{name: root / part for name, part in PARTS.items()},
        **{name: built / part for name, part in BUILT_PARTS.items()},
    )
