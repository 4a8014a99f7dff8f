"""CIFAR-10: the network, the recipes and the two published ways of training."""

DATA_HELP = (
    "cifar-10-python.tar.gz or cifar-10-binary.tar.gz, the folder unpacked from either, a folder of images "
    "train/<class>/ and test/<class>/, or the word digits (default: the official archive, downloaded once)"
)

# What the network is given, and which stem that asks for.
IMAGES = {"height": 32, "width": 32, "depth": 3, "dataset": "cifar10"}

CLASSES = 10

# ResNet-56: nine bottleneck modules in each of three stages.
NETWORK = {"stages": (9, 9, 9), "filters": (64, 64, 128, 256)}

# What the 2018 runs did: L2 of 1e-4, as their curves show, and shifts, fractions of the width and height, either way.
# Of a recipe's values, those that aren't named are off; `--help` says what each is.
PUBLISHED = {
    "schedule": "poly",
    "reg": 1e-4,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "flip": "random",
}

# The same network by later means; docs/recipes.md says what each is, and what was measured.
MODERN = {
    "schedule": "cosine",
    "warmup_epochs": 1,
    "nesterov": True,
    "reg": 2.5e-4,
    "pad_crop": 4,
    "flip": "alternate",
}

RECIPES = {"published": PUBLISHED, "modern": MODERN}

# Learning rate by hand: the published runs took 0.1 to epoch 50, 0.01 to 75 and 0.001 to 85.
BY_HAND = NETWORK | {"epochs": 85, "batch_size": 64, "lr": 0.1, "momentum": 0.9, "schedule": "constant"}

# Decay from 0.1 to 0, linear in the published runs, which took 120 and 150 epochs.
DECAY = NETWORK | {"epochs": 150, "batch_size": 128, "lr": 0.1, "momentum": 0.9}

CHECKPOINTS = "output/resnet_cifar10/checkpoints"
MODEL = "output/resnet_cifar10.hdf5"
