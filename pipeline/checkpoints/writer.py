"""Write checkpoints (see `pipeline.checkpoints.checkpoint`)."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import h5py
import keras
import numpy as np

from pipeline.checkpoints.checkpoint import CHECKPOINT
from pipeline.checkpoints.state import State, parse_state
from pipeline.errors import as_input_error
from pipeline.files.atomic import write_atomically
from pipeline.files.sealed import BLOCK, Seal
from pipeline.nn.normalization import stock_config


def save_checkpoint(
    path: Path, model: keras.Model, state: State, arrays: Mapping[str, np.ndarray], mark: bytes = bytes(32)
) -> None:
    """Write a checkpoint atomically.

    Args:
        model: the model that stock Keras rebuilds from the file.
        state: the state of the run.
        arrays: the arrays of model and run by their names in the file.
        mark: the `lineage` of the history.

    Raises:
        WriteError: the file couldn't be written; an existing file is untouched.
        InputError: `read_checkpoint` would refuse the state.
    """
    versions = {"backend": keras.backend.backend(), "keras_version": keras.__version__}
    # In memory, because the digest comes first in the file.
    with h5py.File("checkpoint", "w", driver="core", backing_store=False, userblock_size=BLOCK) as file:
        file.attrs.update(versions | {"model_config": stock_config(model)})
        weights = file.create_group("model_weights")
        weights.attrs.update(versions | {"layer_names": _names(layer.name for layer in model.layers)})
        for layer in model.layers:
            weights.create_group(layer.name).attrs["weight_names"] = _names(weight.path for weight in layer.weights)
        weights.create_group("top_level_model_weights").attrs["weight_names"] = _names(())
        file["run/state"] = np.frombuffer(content_of(state), np.uint8)
        for name, values in arrays.items():
            file[name] = values
        file.flush()
        content = file.id.get_file_image()
    seal = Seal(CHECKPOINT.magic, len(content), hashlib.sha256(content).digest(), (state.epoch, state.batch), mark)
    write_atomically(path, seal.pack(), content)


def content_of(state: State) -> bytes:
    """Return `state` as JSON; raise `InputError` if `parse_state` would refuse it."""
    content = state.to_json()
    if state.network:  # models from elsewhere can be saved, but only stock Keras opens the file
        with as_input_error(ValueError, "the state can't be saved: "):
            parse_state(content)
    return content


def _names(names: Iterable[str]) -> np.ndarray:
    return np.array([name.encode() for name in names])
