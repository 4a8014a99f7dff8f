"""Checkpoints: one HDF5 file that stock Keras opens and that an exact resume needs nothing beside.

    bytes 0-511      the seal (see `pipeline.files.sealed`), so that damage shows before any HDF5 code touches the file;
                     its two numbers are epoch and batch, its mark says whose it is (see `lineage`), so that of many
                     files the newest, and those of a run, are found without reading all
    /                attributes backend, keras_version, model_config as Keras writes them, stock layers only
    /model_weights   as Keras lays them out; the averaged weights if the run keeps them, which are those to evaluate
    /run/raw         only then: the weights that training goes on with, by their paths, as conv1/kernel
    /run/state       JSON: epoch, batch, network, history, options
    /run/optimizer   the optimizer's variables by their paths: iteration, learning rate, momentum
    /run/metrics     inside an epoch the running loss and accuracy, variables by their number

`keras.models.load_model(path, compile=False)` reads the first two groups. `read_checkpoint` deserialises no code and
no Keras configuration: which arrays there must be, of which shape, follows from the arguments of `ResNet.build`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from pipeline.checkpoints.history import are_values, check_history, epochs_of, is_averaged, is_start_of, lineages
from pipeline.errors import InputError
from pipeline.files.hdf5 import (
    check_attributes,
    check_disjoint,
    check_members,
    dataset_of,
    group_of,
    variable_text_attribute,
)
from pipeline.files.sealed import BLOCK, Kind, blocks, open_sealed, read_seal
from pipeline.files.strictjson import MAX_BYTES, is_count, parse_json
from pipeline.nn.conv.layout import Layer, check_arguments, layers

if TYPE_CHECKING:  # Checking a file needs no Keras.
    import keras

CHECKPOINT = Kind(b"ResNet run 1\n", "checkpoint", "take an earlier one")

# Total and count of the loss, and of the accuracy.
_METRICS = ("0", "1", "2", "3")
# State, configuration, and what HDF5 needs of its own for each array.
_MAX_BESIDE = 3 * MAX_BYTES
_STEP_COUNTERS = ("i4", "i8", "u4", "u8")
# What a network's Keras configuration is made of, beside its layers: classes and where Keras would import them from.
_CLASSES = {"DTypePolicy", "Functional", "GlorotUniform", "L2", "Ones", "Zeros", "__keras_tensor__"}
_MODULES = {
    "keras", "keras.initializers", "keras.layers", "keras.regularizers", "keras.src.models.functional", None,
}  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of its run; `restore` brings its arrays back.

    `epoch` counts completed epochs, `batch` completed batches of the epoch under way. `network` holds the arguments
    of `ResNet.build`, `history` the run so far (see `pipeline.checkpoints.history`), `options` how the process that
    wrote it went about it, `arrays` the file's arrays by their names, if they were asked for.
    """

    path: Path
    epoch: int
    batch: int
    network: dict
    history: dict
    options: dict
    arrays: Mapping[str, np.ndarray]

    @property
    def metrics(self) -> list[np.ndarray]:
        """The running loss and accuracy inside an epoch."""
        return [values for name, values in self.arrays.items() if name.startswith("run/metrics/")]

    @property
    def averages(self) -> dict[str, np.ndarray]:
        """The averaged weights by the paths of their variables; empty if the run keeps none."""
        if not is_averaged(self.history["run"]):
            return {}
        of_model = {name: values for name, values in self.arrays.items() if name.startswith("model_weights/")}
        return {name.split("/", 2)[2]: values for name, values in of_model.items()}

    @property
    def backend(self) -> str:
        """The Keras backend that the run ran on last."""
        return "jax" if "jax" in self.history["run"].get("versions", ()) else "tensorflow"

    @property
    def precision(self) -> str:
        """What a step of the run computes in, a Keras dtype policy."""
        named = self.history["run"].get("arguments", {}).get("precision")
        return named if named == "mixed_bfloat16" else "float32"

    def build_model(self) -> "keras.Model":
        """The network with its weights, averaged if the run averages them, uncompiled, for evaluation.

        It computes in the precision that it was trained in, whatever Keras' dtype policy is.
        """
        import keras

        from pipeline.nn.conv import ResNet

        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.precision)
        try:
            model = ResNet.build(**self.network)
        finally:
            keras.config.set_dtype_policy(policy)
        self._assign(weights_by_name(model))
        return model

    def restore(self, model: "keras.Model") -> None:
        """Give the compiled `model` and its optimizer the values to go on training with, to the bit.

        Raises:
            InputError: an array that the model needs is missing or has another shape or dtype.
        """
        model.optimizer.build(model.trainable_variables)
        weights = raw_by_name(model) if is_averaged(self.history["run"]) else weights_by_name(model)
        self._assign(weights | optimizer_by_name(model.optimizer))

    def restore_metrics(self, model: "keras.Model") -> None:
        """Put the running loss and accuracy of a checkpoint inside an epoch back into the metrics of `model`.

        Raises:
            InputError: the checkpoint holds other metrics.
        """
        import keras

        # Keras makes the variables when it first measures something.
        nothing = keras.ops.zeros((1, *model.output_shape[1:]))
        model.compute_metrics(None, nothing, nothing)
        self._assign(metrics_by_name(model))

    def _assign(self, variables: "Mapping[str, keras.Variable]") -> None:
        values = {name: self._value(name, variable) for name, variable in variables.items()}
        for name, variable in variables.items():
            variable.assign(values[name])

    def _value(self, name: str, variable: "keras.Variable") -> np.ndarray:
        shape, dtype = tuple(variable.shape), np.dtype(variable.dtype)
        stored = self.arrays.get(name)
        if stored is None:
            raise InputError(f"checkpoint {self.path} lacks {name}; it belongs to another network")
        # The width of the step counter is the backend's own choice.
        same_dtype = stored.dtype == dtype or (shape == () and {stored.dtype.kind, dtype.kind} <= {"i", "u"})
        if stored.shape != shape or not same_dtype:
            raise InputError(f"{self.path}: {name} is {stored.dtype} {stored.shape}; expected {dtype} {shape}")
        return stored.astype(dtype)


def weights_by_name(model: "keras.Model") -> "dict[str, keras.Variable]":
    """The weights of `model` by the names of their arrays in a checkpoint."""
    return {f"model_weights/{layer.name}/{weight.path}": weight for layer in model.layers for weight in layer.weights}


def raw_by_name(model: "keras.Model") -> "dict[str, keras.Variable]":
    """The weights of `model` by the names of the arrays that training goes on with where averages take their place."""
    return {f"run/raw/{weight.path}": weight for weight in model.weights}


def optimizer_by_name(optimizer: "keras.optimizers.Optimizer") -> "dict[str, keras.Variable]":
    """The variables of `optimizer` by the names of their arrays in a checkpoint."""
    return {f"run/optimizer/{variable.path}": variable for variable in optimizer.variables}


def metrics_by_name(model: "keras.Model") -> "dict[str, keras.Variable]":
    """The running loss and accuracy of `model` by the names of their arrays in a checkpoint."""
    return {f"run/metrics/{number}": variable for number, variable in enumerate(model.metrics_variables)}


def read_checkpoint(path: Path, *, arrays: bool = True, check: Callable[[Mapping], None] | None = None) -> Checkpoint:
    """The checkpoint in the file `path`, its digest checked first. A name that ends in `.hdf` finds `.hdf5`.

    Args:
        arrays: take the arrays into memory; without them the checkpoint can't be restored.
        check: called with the arguments and with the options in the file, raises `InputError` for those that it doesn't
            take; their form is checked at any rate.

    Raises:
        InputError: the file is missing, is no checkpoint of this project, is damaged, or holds anything that a
            checkpoint of its network does not.
    """
    if path.suffix == ".hdf" and not path.exists():
        path = path.with_suffix(".hdf5")
    with open_sealed(path, CHECKPOINT) as (file, source, seal):
        try:
            state = _read_state(file, check)
            network = list(layers(**state["network"]))
            stored = dict(_check_arrays(file, network, state["batch"], is_averaged(state["history"]["run"])))
            if seal.length > sum(array.nbytes for array in stored.values()) + _MAX_BESIDE:
                raise InputError(f"it has {seal.length:,} bytes, far more than its arrays")
            check_disjoint(stored.values())
            _check_attributes(file, network)
            _check_config(file, blocks(source.fileno(), 0, BLOCK + seal.length), network)
        except ValueError as error:
            raise InputError(f"{path} is not a checkpoint of this project: {error}") from error
        if seal.numbers != (state["epoch"], state["batch"]):
            raise CHECKPOINT.damaged(path, "its first bytes tell of another epoch")
        return Checkpoint(path, **state, arrays={name: stored[name][()] for name in stored} if arrays else {})


def is_checkpoint_of(path: Path, history: dict, changeable: Collection[str] = (), *, whole: bool = False) -> bool:
    """Whether the file `path` is a checkpoint on the way to `history` (see `is_start_of`).

    Where its seal says so it is believed, unless it is to be sound as a `whole`; where not, it is read: it may be from
    before seals said so, or there were other arguments.
    """
    seal = read_seal(path, CHECKPOINT)
    if seal and not whole and seal.mark in lineages(history, *seal.numbers, changeable):
        return True
    try:
        checkpoint = read_checkpoint(path, arrays=False)
    except InputError:
        return False
    return is_start_of(checkpoint.history, history, checkpoint.batch, changeable)


def progress_in(path: Path) -> tuple[int, int] | None:
    """The completed epochs and batches that the first bytes of a checkpoint tell of; None if it is none."""
    seal = read_seal(path, CHECKPOINT)
    return seal and seal.numbers


def _read_state(file: h5py.File, check: Callable[[Mapping], None] | None) -> dict:
    """The state in /run/state, each part checked."""
    stored = dataset_of(group_of(file, "run"), "state", ["u1"], (None,))
    if stored.size > MAX_BYTES:
        raise InputError(f"its state has {stored.size:,} bytes; expected at most {MAX_BYTES:,}")
    state = parse_json(stored[()].tobytes())
    if not isinstance(state, dict) or state.keys() != {"epoch", "batch", "network", "history", "options"}:
        raise InputError("its state is not that of a run")
    if not isinstance(state["network"], dict) or not isinstance(state["options"], dict):
        raise InputError("its state is not that of a run")
    run = isinstance(state["history"], dict) and state["history"].get("run")
    for values in (state["options"], run.get("arguments", {}) if isinstance(run, dict) else {}):
        if check is not None and isinstance(values, dict):
            check(values)
    if not are_values(state["options"]):
        raise InputError("its options are not such as a run has")
    if not state["network"]:
        raise InputError("ResNet.build did not make its network; stock Keras opens it")
    try:
        check_arguments(**state["network"])
    except TypeError as error:
        raise InputError(f"its network is not one of ResNet.build: {error}") from error
    check_history(state["history"])
    if not (is_count(state["epoch"]) and is_count(state["batch"])) or state["epoch"] != epochs_of(state["history"]):
        raise InputError("its state contradicts itself")
    return state


def _check_arrays(
    file: h5py.File, network: Sequence[Layer], batch: int, averaged: bool
) -> Iterator[tuple[str, h5py.Dataset]]:
    """The datasets of weights, optimizer and, after a `batch` inside an epoch, metrics by their names.

    Raises:
        InputError: one of them is missing or anything else, or there is more in `file`.
    """
    run = group_of(file, "run")
    optimizer = group_of(group_of(run, "optimizer"), "sgd")
    slots = {"iteration": (_STEP_COUNTERS, ()), "learning_rate": (["f4"], ())}
    if len(optimizer) > len(slots):
        for layer in network:
            for weight, shape in layer.trainable.items():
                slots[f"{layer.name}_{weight}_momentum"] = (["f4"], shape)
    members = {"state": None, "optimizer": {"sgd": dict.fromkeys(slots)}}
    metrics = _METRICS if batch else ()
    if metrics:
        members["metrics"] = dict.fromkeys(metrics)
    if averaged:
        members["raw"] = {layer.name: dict.fromkeys(layer.weights) for layer in network if layer.weights}
    weights = {layer.name: {layer.name: dict.fromkeys(layer.weights)} if layer.weights else {} for layer in network}
    check_members(file, {"model_weights": weights | {"top_level_model_weights": {}}, "run": members})
    for layer in network:
        for weight, shape in layer.weights.items():
            group = file["model_weights"][layer.name][layer.name]
            yield f"model_weights/{layer.name}/{layer.name}/{weight}", dataset_of(group, weight, ["f4"], shape)
            if averaged:
                yield f"run/raw/{layer.name}/{weight}", dataset_of(run["raw"][layer.name], weight, ["f4"], shape)
    for slot, (dtypes, shape) in slots.items():
        yield f"run/optimizer/sgd/{slot}", dataset_of(optimizer, slot, dtypes, shape)
    for metric in metrics:
        yield f"run/metrics/{metric}", dataset_of(run["metrics"], metric, ["f4"], ())


def _check_attributes(file: h5py.File, network: Sequence[Layer]) -> None:
    """Check that no attribute is there that Keras could take for more than what a network needs."""
    versions = ("backend", "keras_version")
    check_attributes(file, (*versions, "model_config"))
    check_attributes(file["model_weights"], (*versions, "layer_names"))
    for group in file["model_weights"].values():
        check_attributes(group, ["weight_names"])
    for layer in network:
        if layer.weights:
            check_attributes(file["model_weights"][layer.name][layer.name])


def _check_config(file: h5py.File, content: Iterable[bytes], network: Sequence[Layer]) -> None:
    """Check that the configuration that stock Keras would build from is the network's, and names nothing else."""
    config = parse_json(variable_text_attribute(file, content, "model_config", MAX_BYTES).encode())
    try:
        found = [(layer["name"], layer["class_name"]) for layer in config["config"]["layers"]]
    except (KeyError, TypeError) as error:
        raise InputError("its model_config is not that of a network") from error
    if found != [(layer.name, layer.kind) for layer in network]:
        raise InputError("its model_config has other layers than its network")
    classes, parts = _CLASSES | {layer.kind for layer in network}, [config]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if "class_name" in part and (part["class_name"] not in classes or part.get("module") not in _MODULES):
                raise InputError(f"its model_config names {part['class_name']!a:.100}, which its network does not have")
            parts += part.values()
        elif isinstance(part, list):
            parts += part
