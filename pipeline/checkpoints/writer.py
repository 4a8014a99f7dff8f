"""Writing checkpoints (see `pipeline.checkpoints.checkpoint`)."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import keras
import numpy as np

from pipeline.checkpoints.checkpoint import CHECKPOINT, metrics_by_name, optimizer_by_name, raw_by_name, weights_by_name
from pipeline.files.atomic import write_atomically
from pipeline.files.sealed import BLOCK, Seal
from pipeline.nn.average import MovingAverage
from pipeline.nn.normalization import stock_config


def metric_state(model: keras.Model) -> list[np.ndarray]:
    """The running loss and accuracy of `model`, to be saved inside an epoch."""
    return [keras.ops.convert_to_numpy(variable) for variable in metrics_by_name(model).values()]


def save_checkpoint(
    path: Path,
    model: keras.Model,
    *,
    epoch: int,
    batch: int,
    network: dict,
    history: dict,
    options: dict,
    metrics: Sequence[np.ndarray] = (),
    average: MovingAverage | None = None,
    mark: bytes = bytes(32),
) -> None:
    """Write the state of a compiled `model` after `epoch` epochs and `batch` batches of the next, atomically.

    `metrics` is the `metric_state` of the model inside an epoch. With an `average`, the weights that Keras finds are
    the averaged ones, and those that training goes on with stand beside. `mark` is the `lineage` of the history.

    Raises:
        WriteError: the file could not be written whole; the one that was there is untouched.
    """
    state = {"epoch": epoch, "batch": batch, "network": network, "history": history, "options": options}
    versions = {"backend": keras.backend.backend(), "keras_version": keras.__version__}
    # In memory, so that the digest is known before the first byte reaches the disk.
    with h5py.File("checkpoint", "w", driver="core", backing_store=False, userblock_size=BLOCK) as file:
        file.attrs.update(versions | {"model_config": stock_config(model)})
        weights = file.create_group("model_weights")
        weights.attrs.update(versions | {"layer_names": _names(layer.name for layer in model.layers)})
        for layer in model.layers:
            weights.create_group(layer.name).attrs["weight_names"] = _names(weight.path for weight in layer.weights)
        weights.create_group("top_level_model_weights").attrs["weight_names"] = _names(())
        file["run/state"] = np.frombuffer(json.dumps(state, allow_nan=False).encode(), np.uint8)
        for name, values in _arrays(model, average).items():
            file[name] = keras.ops.convert_to_numpy(values)
        for number, values in enumerate(metrics):
            file[f"run/metrics/{number}"] = values
        file.flush()
        content = file.id.get_file_image()
    seal = Seal(CHECKPOINT.magic, len(content), hashlib.sha256(content).digest(), (epoch, batch), mark)
    write_atomically(path, seal.pack(), content)


def _arrays(model: keras.Model, average: MovingAverage | None) -> "dict[str, keras.Variable | np.ndarray]":
    """What is saved of weights and optimizer, by the names of their arrays."""
    weights = weights_by_name(model)
    arrays = weights | optimizer_by_name(model.optimizer)
    if average is not None:
        averages, raw = average.arrays(), average.raw_arrays()
        arrays |= {name: averages[variable.path] for name, variable in weights.items()}
        arrays |= {name: raw[variable.path] for name, variable in raw_by_name(model).items()}
    return arrays


def _names(names: Iterable[str]) -> np.ndarray:
    return np.array([name.encode() for name in names])
