"""Write checkpoints (see `pipeline.checkpoints.checkpoint`)."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from weakref import WeakKeyDictionary

import h5py
import keras
import numpy as np

from pipeline.checkpoints.checkpoint import CHECKPOINT
from pipeline.checkpoints.state import State, parse_state
from pipeline.errors import as_input_error
from pipeline.files.atomic import write_atomically
from pipeline.files.sealed import BLOCK, Seal
from pipeline.nn.normalization import stock_config

# Keras takes a tenth of a second to describe a network, which doesn't change.
_configs: WeakKeyDictionary[keras.Model, str] = WeakKeyDictionary()


@dataclass(frozen=True)
class Content:
    """The content of a checkpoint file, independent of the model and the run that it was taken from.

    Args:
        config: JSON from which stock Keras rebuilds the model.
        weights: names of the weights of each layer.
        state: the state of the run, as JSON.
        progress: completed epochs, and completed batches of the next one.
        arrays: the arrays of model and run by their names in the file.
        mark: the `lineage` of the history.
    """

    config: str
    weights: Mapping[str, list[str]]
    state: bytes
    progress: tuple[int, int]
    arrays: Mapping[str, np.ndarray]
    mark: bytes = bytes(32)

    @classmethod
    def of(cls, model: keras.Model, state: State, arrays: Mapping[str, np.ndarray], mark: bytes = bytes(32)) -> Self:
        """Take the content from the model that stock Keras rebuilds from the file, and the state of the run.

        Raises:
            InputError: `read_checkpoint` would refuse the state.
        """
        weights = {layer.name: [weight.path for weight in layer.weights] for layer in model.layers}
        if model not in _configs:
            _configs[model] = stock_config(model)
        return cls(_configs[model], weights, content_of(state), (state.epoch, state.batch), arrays, mark)


def save_checkpoint(path: Path, content: Content) -> None:
    """Write a checkpoint atomically.

    Raises:
        WriteError: the file couldn't be written; an existing file is untouched.
    """
    image = image_of(content)
    seal = Seal(CHECKPOINT.magic, len(image), hashlib.sha256(image).digest(), content.progress, content.mark)
    write_atomically(path, seal.pack(), image)


def image_of(content: Content) -> bytes:
    """Return the HDF5 file of a checkpoint, without the block before it."""
    versions = {"backend": keras.backend.backend(), "keras_version": keras.__version__}
    # In memory, because the digest comes first in the file.
    with h5py.File("checkpoint", "w", driver="core", backing_store=False, userblock_size=BLOCK) as file:
        file.attrs.update(versions | {"model_config": content.config})
        group = file.create_group("model_weights")
        group.attrs.update(versions | {"layer_names": _names(content.weights)})
        for layer, weights in content.weights.items():
            group.create_group(layer).attrs["weight_names"] = _names(weights)
        group.create_group("top_level_model_weights").attrs["weight_names"] = _names(())
        file["run/state"] = np.frombuffer(content.state, np.uint8)
        for name, values in content.arrays.items():
            file[name] = values
        file.flush()
        return file.id.get_file_image()


def content_of(state: State) -> bytes:
    """Return `state` as JSON; raise `InputError` if `parse_state` would refuse it."""
    content = state.to_json()
    if state.network:  # models from elsewhere can be saved, but only stock Keras opens the file
        with as_input_error(ValueError, "the state can't be saved: "):
            parse_state(content)
    return content


def _names(names: Iterable[str]) -> np.ndarray:
    return np.array([name.encode() for name in names])
