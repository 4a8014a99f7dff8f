"""Data sets by name, and the data set of a checkpoint."""

import os
from argparse import ArgumentTypeError
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType

from pipeline.cli import flags
from pipeline.errors import InputError, as_input_error

# Module and class of each data set, and the script that trains on it with the rate set by hand; with decay, it is
# SCRIPT_decay. Its constants are in the module config.NAME_config.
DATASETS = {
    "cifar10": ("pipeline.data.cifar10", "CIFAR10", "resnet_cifar10"),
    "tiny_imagenet": ("pipeline.data.tinyimagenet", "TinyImageNet", "train"),
    "imagenet": ("pipeline.data.imagenet", "ImageNet", "train_imagenet"),
}
# Checkpoints of format 1 name only their script.
_CIFAR10, _TINY = ("resnet_cifar10", "resnet_cifar10_decay"), ("train", "train_decay")
_SCRIPTS = dict.fromkeys(_CIFAR10, "cifar10") | dict.fromkeys(_TINY, "tiny_imagenet")


def config_of(name: str) -> ModuleType:
    """Return the config module of the data set `name`."""
    return import_module(f"config.{name}_config")


def open_source(name: str, data: str | None, saved: Mapping[str, object]):
    """Open the `pipeline.data.DataSource` of the data set `name` at the path `data`, or at its default path.

    The rest of its arguments are the `saved` values of the flags of the same names.

    Raises:
        InputError: a value is invalid.
    """
    config = config_of(name)
    files = config.files(data) if hasattr(config, "files") else data
    values = flags.saved_values(saved, ("limit", "holdout", *view_flags(name)))
    return source_class(name)(files, **values)


def source_class(name: str) -> type:
    """Return the subclass of `pipeline.data.DataSource` for the data set `name`."""
    module, class_name, _ = DATASETS[name]
    return getattr(import_module(module), class_name)


def view_flags(name: str) -> tuple[str, ...]:
    """Return the flags that say how images of the data set `name` are resized; none if all have one size."""
    return tuple(flag.name for flag in flags.rows(config_of(name)) if flag.images and flag.scope == flags.RUN)


def path_of(name: str, given: str | None, trained: str | None) -> str | None:
    """Return the path of the data set `name`: the `given` one, else the environment's, else the `trained` one."""
    variable = getattr(config_of(name), "DATA_VARIABLE", None)
    named = os.environ.get(variable) if variable else None
    with as_input_error(ArgumentTypeError, f"{variable}: "):
        return given or (flags.path(named) if named else trained)


def dataset_of(checkpoint, given: str | None = None) -> str:
    """Return the name of the data set that the network in a `pipeline.checkpoints.Checkpoint` was trained on.

    Raises:
        InputError: the checkpoint names no known data set, or not the `given` one.
    """
    run = checkpoint.history["run"]
    name = run.get("dataset", _SCRIPTS.get(run.get("script"), given))
    if name is not None and name not in DATASETS:
        raise InputError(
            f"{checkpoint.path} was trained on {name}, which scripts can't open; evaluate it in Python (docs/data.md)"
        )
    if given not in (None, name):
        raise InputError(f"--dataset {given}: {checkpoint.path} was trained on {name}; omit the flag")
    if name not in DATASETS:
        raise InputError(
            f"{checkpoint.path} doesn't name its data set; name one of {', '.join(DATASETS)} with --dataset"
        )
    return name
