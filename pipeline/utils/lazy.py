"""Public names of a package that are imported on first use."""

from collections.abc import Callable
from importlib import import_module


def names(package: str, **modules: str) -> tuple[Callable[[str], object], list[str]]:
    """Return `__getattr__` and `__all__` of `package` (PEP 562), given space-separated public names by module."""
    homes = {name: module for module, held in modules.items() for name in held.split()}

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return load, sorted(homes)
