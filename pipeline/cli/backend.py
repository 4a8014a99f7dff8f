"""Choose Keras' backend, and ignore all other settings of the user.

Keras reads the environment variable KERAS_BACKEND and the file `keras.json` (in the folder KERAS_HOME, else `~/.keras`)
when it is imported. Other programs may have left settings there that would change the results.
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
# Settings that cut every fit short, or change the type of variables.
_FOREIGN = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED")


def choose_backend() -> str:
    """Return the backend named by the environment or `keras.json`, else TensorFlow.

    Raises:
        InputError: it is not one of `BACKENDS`.
    """
    if backend := os.environ.get("KERAS_BACKEND"):
        if backend not in BACKENDS:
            raise InputError(f"KERAS_BACKEND is {backend!a:.100}; expected {' or '.join(BACKENDS)}")
        return backend
    path = keras_home() / "keras.json"
    backend = _backend_in(path)
    if backend not in BACKENDS:
        raise InputError(
            f"the backend in {path} is {backend!a:.100}; expected {' or '.join(BACKENDS)}; set the environment "
            "variable KERAS_BACKEND, which overrides the file"
        )
    return backend


@contextmanager
def loading_keras(backend: str) -> Iterator[None]:
    """Make Keras, if it is imported inside this context, use `backend` and its own defaults.

    Raises:
        InputError: JAX finds no device.
    """
    os.environ["KERAS_BACKEND"] = backend
    for name in _FOREIGN:
        os.environ.pop(name, None)
    home, named = keras_home(), os.environ.get("KERAS_HOME")
    # A place where no file can exist: Keras neither reads nor writes settings.
    os.environ["KERAS_HOME"] = os.devnull
    try:
        yield
    finally:
        del os.environ["KERAS_HOME"]
        if named is not None:
            os.environ["KERAS_HOME"] = named
        if config := sys.modules.get("keras.src.backend.config"):
            config._KERAS_DIR = str(home)  # for downloads
    if backend == "jax" and "jax" in sys.modules:
        _check_jax_devices()


def keras_home() -> Path:
    """Return the folder of Keras' settings and downloads, as Keras itself finds it."""
    if "KERAS_HOME" in os.environ:
        return Path(os.path.expanduser(os.environ["KERAS_HOME"]))
    home = os.path.expanduser("~")
    return Path(home if os.access(home, os.W_OK) else tempfile.gettempdir()) / ".keras"


def _check_jax_devices() -> None:
    import jax

    try:
        jax.devices()
    except Exception as error:  # of several types, some without a message
        platforms = os.environ.get("JAX_PLATFORMS")
        setting = f" with JAX_PLATFORMS={platforms}" if platforms else ""
        reason = f"{error!s:.200}".partition("\n")[0] or "no such device"
        raise InputError(f"JAX finds no device{setting}: {reason}") from error


def _backend_in(path: Path) -> object:
    """Return the backend named in the settings file `path`; TensorFlow if there is no readable file."""
    try:
        return json.loads(path.read_text()).get("backend", BACKENDS[0])
    except (OSError, ValueError, AttributeError):
        return BACKENDS[0]
