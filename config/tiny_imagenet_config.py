"""Tiny ImageNet: where its parts lie, how it is split, the network, the recipes and two ways of training."""

from pathlib import Path
from types import SimpleNamespace

# Everything of the data set hangs on one folder: --data, for which the environment variable may stand, else this.
DATA = "datasets/tiny-imagenet-200"
DATA_VARIABLE = "TINY_IMAGENET_DIR"
DATA_HELP = f"folder of Tiny ImageNet, or one that its build wrote to (default: that in {DATA_VARIABLE}, else {DATA})"

# As it is distributed.
PARTS = {
    "train_images": "train",
    "val_images": "val/images",
    "val_mappings": "val/val_annotations.txt",
    "unlabelled_images": "test/images",
    "wordnet_ids": "wnids.txt",
    "word_labels": "words.txt",
}

# What the build makes of it, in the folder `BUILT` there, or in one of its own.
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

# Of the training images of each class, so many become the test set, whose official labels were never published. The
# official validation set stays what it is.
TEST_IMAGES_PER_CLASS = 50
SPLIT_SEED = 42

# What the network is given, and which stem that asks for.
IMAGES = {"height": 64, "width": 64, "depth": 3, "dataset": "tiny_imagenet"}

# In the full data set; the scripts count them in the data that they are given.
CLASSES = 200

NETWORK = {"stages": (3, 4, 6), "filters": (64, 128, 256, 512)}

# What the 2018 runs did. Rotation and shear are in degrees, zoom z is for factors of 1 - z to 1 + z, shifts are
# fractions of the image's width and height. Of a recipe's values, those that aren't named are off; `--help` says
# what each is.
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

# The same network by later means; docs/recipes.md says what each is, and what was measured.
MODERN = {
    "schedule": "cosine",
    "warmup_epochs": 1,
    "nesterov": True,
    "reg": 2.5e-4,
    "pad_crop": 8,
    "flip": "alternate",
}

RECIPES = {"published": PUBLISHED, "modern": MODERN}

# Learning rate by hand: the published run took 0.1 to epoch 30, 0.01 to 50 and 0.001 to 70.
BY_HAND = NETWORK | {"epochs": 70, "batch_size": 64, "lr": 0.1, "momentum": 0.9, "schedule": "constant"}

# Decay from 0.1 to 0, linear in the published run.
DECAY = NETWORK | {"epochs": 75, "batch_size": 64, "lr": 0.1, "momentum": 0.9}

# Checkpoints, and the trained model. The plots and histories go to --output, named after the scripts.
CHECKPOINTS = "output/train/checkpoints"
MODEL = "output/resnet_tinyimagenet_decay.hdf5"


def files(data: str | None = None) -> dict[str, Path]:
    """The paths of the parts that are built: train, val, test and mean."""
    return {name.removesuffix("_hdf5"): getattr(places(data), name) for name in BUILT_PARTS}


def places(data: str | None = None, output: str | None = None) -> SimpleNamespace:
    """The paths of the data set's `root` folder, of its `PARTS` and of the `BUILT_PARTS`, by name.

    Args:
        data: the flag --data; a folder as the data set is distributed, or one that holds the built parts.
        output: folder of the built parts, if it is none of these.
    """
    root = Path(data or DATA)
    built = Path(output) if output else root if (root / BUILT_PARTS["mean"]).exists() else root / BUILT
    return SimpleNamespace(
        root=root,
        **{name: root / part for name, part in PARTS.items()},
        **{name: built / part for name, part in BUILT_PARTS.items()},
    )
