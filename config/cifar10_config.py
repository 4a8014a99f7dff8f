"""CIFAR-10: the network, the augmentation and the two published ways of training."""

# What the network is given, and which stem that asks for.
IMAGES = {"height": 32, "width": 32, "depth": 3, "dataset": "cifar10"}

CLASSES = 10

# ResNet-56: nine bottleneck modules in each of three stages. L2 of 1e-4 is what the published curves show.
NETWORK = {"stages": (9, 9, 9), "filters": (64, 64, 128, 256), "reg": 1e-4}

# Shifts are fractions of the image's width and height, either way.
AUGMENTATION = {"width_shift_range": 0.1, "height_shift_range": 0.1, "horizontal_flip": True}

# Learning rate by hand: the published runs took 0.1 to epoch 50, 0.01 to 75 and 0.001 to 85.
BY_HAND = NETWORK | {"epochs": 85, "batch_size": 64, "lr": 0.1, "momentum": 0.9}

# Linear decay from 0.1 to 0: the published runs took 120 and 150 epochs.
DECAY = NETWORK | {"epochs": 150, "batch_size": 128, "lr": 0.1, "momentum": 0.9}

CHECKPOINTS = "output/checkpoints"
MODEL = "output/resnet_cifar10.hdf5"
