"""CIFAR-10: network, recipes, and both ways of training."""

DATA_HELP = (
    "cifar-10-python.tar.gz or cifar-10-binary.tar.gz, the folder unpacked from either, a folder with images in "
    "train/<class>/ and test/<class>/, or the word digits (default: the official archive, downloaded once)"
)

# The input of the network, and its stem.
IMAGES = {"height": 32, "width": 32, "depth": 3, "dataset": "cifar10"}

CLASSES = 10

# ResNet-56: nine bottleneck modules in each of three stages.
NETWORK = {"stages": (9, 9, 9), "filters": (64, 64, 128, 256)}

# The 2018 runs. Their curves show an L2 of 1e-4. Shifts are fractions of width and height, in both directions. Values
# that a recipe doesn't name are off; see --help.
PUBLISHED = {
    "schedule": "poly",
    "reg": 1e-4,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "flip": "random",
}

# The same network with later techniques; see docs/recipes.md.
MODERN = {
    "schedule": "cosine",
    "warmup_epochs": 1,
    "nesterov": True,
    "reg": 2.5e-4,
    "pad_crop": 4,
    "flip": "alternate",
}

RECIPES = {"published": PUBLISHED, "modern": MODERN}

# Learning rate by hand. Published: 0.1 up to epoch 50, 0.01 up to 75, 0.001 up to 85.
BY_HAND = NETWORK | {"epochs": 85, "batch_size": 64, "lr": 0.1, "momentum": 0.9, "schedule": "constant"}

# Decay from 0.1 to 0. Published: linear, over 120 and 150 epochs.
DECAY = NETWORK | {"epochs": 150, "batch_size": 128, "lr": 0.1, "momentum": 0.9}

CHECKPOINTS = "output/resnet_cifar10/checkpoints"
MODEL = "output/resnet_cifar10.hdf5"
