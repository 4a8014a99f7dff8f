"""Tiny ImageNet: the network."""

# What the network is given, and which stem that asks for.
IMAGES = {"height": 64, "width": 64, "depth": 3, "dataset": "tiny_imagenet"}

CLASSES = 200

NETWORK = {"stages": (3, 4, 6), "filters": (64, 128, 256, 512), "reg": 1e-4}
