"""Names that a package hands on and that load on first use, so that a program pays only for what it needs."""

from collections.abc import Callable
from importlib import import_module


def names(package: str, **modules: str) -> tuple[Callable[[str], object], list[str]]:
    """`__getattr__` and `__all__` of `package`, given the public names, by blanks apart, of modules in it (PEP 562)."""
    homes = {name: module for module, held in modules.items() for name in held.split()}

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return load, sorted(homes)
