"""Which backend Keras computes with, and its other settings, which are Keras' own defaults whatever a user's say.

Keras reads both when it loads: the environment variable KERAS_BACKEND, and `keras.json` in the folder KERAS_HOME, else
`~/.keras`, where other programs may have left what they need.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import InputError

BACKENDS = ("tensorflow", "jax")
# Settings that cut every fit short, or make variables of another kind.
_FOREIGN = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED")


def choose_backend() -> str:
    """The backend that the environment or `keras.json` names, else TensorFlow.

    Raises:
        InputError: it is none of `BACKENDS`.
    """
    if backend := os.environ.get("KERAS_BACKEND"):
        if backend not in BACKENDS:
            raise InputError(f"KERAS_BACKEND is {backend!a:.100}; expected {' or '.join(BACKENDS)}")
        return backend
    path = keras_home() / "keras.json"
    backend = _backend_in(path)
    if backend not in BACKENDS:
        raise InputError(
            f"the backend in {path} is {backend!a:.100}; expected {' or '.join(BACKENDS)}: set the environment "
            "variable KERAS_BACKEND, which wins over the file"
        )
    return backend


@contextmanager
def loading_keras(backend: str) -> Iterator[None]:
    """Let Keras, if it is imported inside, load with `backend` and with its own defaults.

    Raises:
        InputError: JAX can't use the devices that it is told to.
    """
    os.environ["KERAS_BACKEND"] = backend
    for name in _FOREIGN:
        os.environ.pop(name, None)
    home, named = keras_home(), os.environ.get("KERAS_HOME")
    # Where no file can be Keras reads no settings, and writes none.
    os.environ["KERAS_HOME"] = os.devnull
    try:
        yield
    finally:
        del os.environ["KERAS_HOME"]
        if named is not None:
            os.environ["KERAS_HOME"] = named
        if config := sys.modules.get("keras.src.backend.config"):
            config._KERAS_DIR = str(home)  # for what it downloads
    if backend == "jax" and "jax" in sys.modules:
        _check_jax_devices()


def keras_home() -> Path:
    """The folder of Keras' settings and downloads, which it finds in the same way."""
    if "KERAS_HOME" in os.environ:
        return Path(os.path.expanduser(os.environ["KERAS_HOME"]))
    home = os.path.expanduser("~")
    return Path(home if os.access(home, os.W_OK) else tempfile.gettempdir()) / ".keras"


def _check_jax_devices() -> None:
    import jax

    try:
        jax.devices()
    except Exception as error:  # of several types, one of them without a text
        platforms = os.environ.get("JAX_PLATFORMS")
        told = f" with JAX_PLATFORMS={platforms}" if platforms else ""
        reason = f"{error!s:.200}".partition("\n")[0] or "nothing of that kind is here"
        raise InputError(f"JAX finds no device{told}: {reason}") from error


def _backend_in(path: Path) -> object:
    """The backend that the settings in the file `path` name; TensorFlow if there are none, or none that can be read."""
    try:
        return json.loads(path.read_text()).get("backend", BACKENDS[0])
    except (OSError, ValueError, AttributeError):
        return BACKENDS[0]
