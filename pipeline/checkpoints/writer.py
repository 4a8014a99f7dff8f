"""Writing checkpoints (see `pipeline.checkpoints.checkpoint`)."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import h5py
import keras
import numpy as np

from pipeline.checkpoints.checkpoint import CHECKPOINT
from pipeline.checkpoints.state import State, parse_state
from pipeline.errors import refusing
from pipeline.files.atomic import write_atomically
from pipeline.files.sealed import BLOCK, Seal
from pipeline.nn.normalization import stock_config


def save_checkpoint(
    path: Path, model: keras.Model, state: State, arrays: Mapping[str, np.ndarray], mark: bytes = bytes(32)
) -> None:
    """Write a checkpoint atomically.

    Args:
        model: what stock Keras is to rebuild from the file.
        state: where the run stands.
        arrays: of the model and of the run, by their names in the file.
        mark: the `lineage` of the history.

    Raises:
        WriteError: the file could not be written whole; the one that was there is untouched.
        InputError: the state is one that `read_checkpoint` would refuse.
    """
    versions = {"backend": keras.backend.backend(), "keras_version": keras.__version__}
    # In memory, so that the digest is known before the first byte reaches the disk.
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
    """The JSON of `state`; `InputError` if no reader would take it."""
    content = state.to_json()
    if state.network:  # else it is a model of another kind, which stock Keras alone opens
        with refusing(ValueError, "the state can't be saved: "):
            parse_state(content)
    return content


def _names(names: Iterable[str]) -> np.ndarray:
    return np.array([name.encode() for name in names])
