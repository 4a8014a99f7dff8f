"""What goes to and comes from the disk. Names load on first use: reading images needs no Keras."""

from importlib import import_module

_HOMES = {
    "ArrayBatches": "batches",
    "Checkpoint": "checkpoint",
    "Dataset": "dataset",
    "load_cifar10": "cifar10",
    "read_checkpoint": "checkpoint",
    "save_checkpoint": "checkpoint",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
