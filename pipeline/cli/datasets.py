"""The data sets by their names, and what a checkpoint says of its own."""

from importlib import import_module
from types import ModuleType

from config import cifar10_config, tiny_imagenet_config
from pipeline.errors import InputError

# What is true of each, and its class in `pipeline.data`. One more is a line here.
DATASETS: dict[str, tuple[ModuleType, str]] = {
    "cifar10": (cifar10_config, "CIFAR10"),
    "tiny_imagenet": (tiny_imagenet_config, "TinyImageNet"),
}
# Of checkpoints of format 1, which say no more than their script.
_SCRIPTS = dict.fromkeys(("resnet_cifar10", "resnet_cifar10_decay"), "cifar10")
_SCRIPTS |= dict.fromkeys(("train", "train_decay"), "tiny_imagenet")


def open_source(name: str, data: str | None, limit: int | None = None, holdout: int | None = None):
    """The data set `name`, at the place `data`, or where it usually lies."""
    config, kind = DATASETS[name]
    source = getattr(import_module("pipeline.data"), kind)
    return source(config.files(data) if hasattr(config, "files") else data, limit, holdout)


def dataset_of(checkpoint) -> str:
    """The name of the data set that a network was trained on.

    Raises:
        InputError: the checkpoint names none that is known.
    """
    run = checkpoint.history["run"]
    name = run.get("dataset", _SCRIPTS.get(run.get("script")))
    if name not in DATASETS:
        said = f"was trained on {name}" if name else "doesn't say what it was trained on"
        raise InputError(f"{checkpoint.path} {said}; expected one of {', '.join(DATASETS)}: name it with --dataset")
    return name
