"""The data sets by their names, and what a checkpoint says of its own."""

import os
from argparse import ArgumentTypeError
from importlib import import_module
from types import ModuleType

from pipeline.cli.flags import path
from pipeline.errors import InputError, refusing

# The module of each, and its class; its values are in config, in the module NAME_config. One more is a line here.
DATASETS = {
    "cifar10": ("pipeline.data.cifar10", "CIFAR10"),
    "tiny_imagenet": ("pipeline.data.tinyimagenet", "TinyImageNet"),
}
# Of checkpoints of format 1, which say no more than their script.
_CIFAR10, _TINY = ("resnet_cifar10", "resnet_cifar10_decay"), ("train", "train_decay")
_SCRIPTS = dict.fromkeys(_CIFAR10, "cifar10") | dict.fromkeys(_TINY, "tiny_imagenet")


def config_of(name: str) -> ModuleType:
    """What is true of the data set `name`."""
    return import_module(f"config.{name}_config")


def open_source(name: str, data: str | None, limit: int | None = None, holdout: int | None = None):
    """The `pipeline.data.DataSource` of the data set `name`, at the place `data`, or where it usually lies."""
    module, kind = DATASETS[name]
    config = config_of(name)
    files = config.files(data) if hasattr(config, "files") else data
    return getattr(import_module(module), kind)(files, limit, holdout)


def place_of(name: str, given: str | None, trained: str | None) -> str | None:
    """Where the images of the data set `name` lie: as is `given`, else in the environment, else where it `trained`."""
    variable = getattr(config_of(name), "DATA_VARIABLE", None)
    named = os.environ.get(variable) if variable else None
    with refusing(ArgumentTypeError, f"{variable}: "):
        return given or (path(named) if named else trained)


def dataset_of(checkpoint, given: str | None = None) -> str:
    """The name of the data set that the network in a `pipeline.checkpoints.Checkpoint` was trained on.

    Raises:
        InputError: it names none that is known, or another one than is `given`.
    """
    run = checkpoint.history["run"]
    name = run.get("dataset", _SCRIPTS.get(run.get("script"), given))
    if given not in (None, name):
        raise InputError(f"--dataset {given}: {checkpoint.path} was trained on {name}; leave it out")
    if name not in DATASETS:
        said = f"was trained on {name}" if name else "doesn't say what it was trained on"
        raise InputError(f"{checkpoint.path} {said}; expected one of {', '.join(DATASETS)}: name it with --dataset")
    return name
