"""The state of a run, stored as JSON in /run/state of a checkpoint: everything but the arrays. Needs no Keras.

Format 2, an object with:

    format                2
    epoch, batch          completed epochs, and completed batches of the next one
    network               arguments of `ResNet.build`
    history               the run's history (see `pipeline.checkpoints.history`)
    options               options of the process that wrote the file
    averaged              true if /model_weights holds averages, and /run/raw the raw weights
    normalization         shape of /run/normalization, [height, width, channels], [channels] or [2, channels]; null if
                          unknown
    optimizer             class_name and config (without the learning rate) of the Keras optimizer, and arrays, the
                          manifest of its arrays; null in a file of weights only
    metrics               manifest of the arrays of loss and metrics, which only files inside an epoch hold
    callbacks             state of each stateful callback, by name
    seconds               duration of the current epoch so far

A manifest lists arrays in the order of their numbers in the file, each with name, shape and dtype. Format 1 has only
epoch, batch, network, history and options.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.checkpoints.history import PRECISIONS, are_values, check_history, epochs_of
from pipeline.errors import InputError
from pipeline.files.strictjson import is_count, is_number, parse_json
from pipeline.nn.conv.layout import Layer, check_arguments, layers

FORMAT = 2
DTYPES = ("float32", "float64", "int32", "int64", "uint32", "uint64")
"""Types of an optimizer's or a metric's arrays."""
MAX_SLOTS = 4
"""Maximum number of optimizer arrays per trainable weight of the same shape.

Scalars: as many per trainable weight, plus `_OWN_SCALARS`.
"""
MAX_METRIC_NUMBERS = 1 << 16
MAX_CALLBACK_BYTES = 1 << 16
_OWN_SCALARS = 16
_MAX_METRIC_ARRAYS = 1024
_MAX_NAME = 200
_MAX_RANK = 8
_OF_FORMAT_1 = {"format", "epoch", "batch", "network", "history", "options"}


@dataclass(frozen=True, kw_only=True)
class State:
    """The state of a run; the module's docstring describes its parts."""

    format: int = FORMAT
    epoch: int
    batch: int
    network: dict
    history: dict
    options: dict = field(default_factory=dict)
    averaged: bool = False
    normalization: Sequence[int] | None = None
    optimizer: dict | None = None
    metrics: Sequence[dict] = ()
    callbacks: dict = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> bytes:
        """Return the state in format 2."""
        parts = {name: getattr(self, name) for name in State.__dataclass_fields__}
        return json.dumps(parts | {"format": FORMAT}, allow_nan=False).encode()


def manifest_entry(name: str, shape: Sequence[int], dtype: str) -> dict:
    """Return the entry of one array in a manifest."""
    return {"name": name, "shape": list(shape), "dtype": dtype}


def parse_state(content: bytes) -> State:
    """Parse and check a state of either format.

    Raises:
        ValueError: `content` is not the state of a run.
    """
    parts = parse_json(content)
    if not isinstance(parts, dict):
        raise InputError("its state is not a JSON object")
    version = parts.setdefault("format", 1)
    if version not in (1, FORMAT) or isinstance(version, (bool, float)):
        raise InputError(f"it has format {version!a:.20}; this version reads 1 and {FORMAT}")
    expected = _OF_FORMAT_1 if version == 1 else State.__dataclass_fields__.keys()
    if parts.keys() != expected:
        raise InputError(f"its state has missing or unknown parts: {', '.join(sorted(parts.keys() ^ expected))!a:.100}")
    _check_common_parts(parts)
    if version == 1:
        return _from_format_1(parts)
    state = State(**parts)
    _check_format_2(state)
    return state


def check_optimizer(manifest: Sequence[dict], network: Sequence[Layer]) -> None:
    """Check that the arrays of an optimizer are scalars or have the shape of a trainable weight.

    Args:
        manifest: the arrays, already checked by `check_manifest`.
        network: the layers of the network.

    Raises:
        InputError: an array has another shape, or there are more than `MAX_SLOTS` per weight.
    """
    weights = Counter(tuple(shape) for layer in network for shape in layer.trainable.values())
    most = {shape: MAX_SLOTS * count for shape, count in weights.items()}
    most[()] = MAX_SLOTS * weights.total() + _OWN_SCALARS
    for shape, count in Counter(tuple(entry["shape"]) for entry in manifest).items():
        if count > most.get(shape, 0):
            name = next(entry["name"] for entry in manifest if tuple(entry["shape"]) == shape)
            if shape in most:
                raise InputError(
                    f"the optimizer has {count} arrays of shape {shape}; a checkpoint holds at most {MAX_SLOTS} per "
                    "weight of that shape"
                )
            raise InputError(
                f"the optimizer's {name} has shape {shape!s:.100}, which no trainable weight has; a checkpoint can't "
                "hold it; use another optimizer"
            )


def check_metrics(manifest: Sequence[dict]) -> None:
    """Raise `InputError` if the metrics' arrays in `manifest` are too large for a checkpoint."""
    numbers = sum(math.prod(entry["shape"]) for entry in manifest)
    if numbers > MAX_METRIC_NUMBERS or len(manifest) > _MAX_METRIC_ARRAYS:
        raise InputError(
            f"the metrics hold {min(numbers, 10**18):,} numbers in {len(manifest):,} arrays; expected at most "
            f"{MAX_METRIC_NUMBERS:,} in {_MAX_METRIC_ARRAYS:,}"
        )


def check_manifest(manifest: object, whose: str) -> None:
    """Raise `InputError` unless `manifest` lists unique names with shapes and dtypes; `whose` is for the message."""
    if not isinstance(manifest, (list, tuple)):
        raise InputError(f"the manifest of the {whose} is not a list")
    names = set()
    for entry in manifest:
        if not isinstance(entry, dict) or entry.keys() != {"name", "shape", "dtype"}:
            raise InputError(f"the manifest of the {whose} has the entry {entry!a:.100}; expected name, shape, dtype")
        name, shape, dtype = entry["name"], entry["shape"], entry["dtype"]
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _MAX_NAME:
            raise InputError(f"the manifest of the {whose} has the name {name!a:.100}; expected printable text")
        if name in names:
            raise InputError(f"the manifest of the {whose} has the name {name!a:.100} twice")
        if not isinstance(shape, list) or len(shape) > _MAX_RANK or not all(is_count(size) and size for size in shape):
            raise InputError(f"{name} of the {whose} has shape {shape!a:.100}; expected up to 8 numbers of at least 1")
        if dtype not in DTYPES:
            raise InputError(f"{name} of the {whose} is {dtype!a:.100}; expected one of {', '.join(DTYPES)}")
        names.add(name)


def callback_state(name: str, state: object) -> object:
    """Return the `state` of the callback `name` as it will be read from a checkpoint.

    Raises:
        InputError: JSON can't hold the state, or it exceeds `MAX_CALLBACK_BYTES`.
    """
    try:
        text = json.dumps(state, allow_nan=False)
        value = parse_json(text.encode())  # the reader has limits, such as 18 digits
    except (TypeError, ValueError) as error:
        raise InputError(f"a checkpoint can't hold what get_state of {name} returns: {error}") from error
    if len(text) > MAX_CALLBACK_BYTES:
        raise InputError(f"get_state of {name} returns {len(text):,} bytes; expected at most {MAX_CALLBACK_BYTES:,}")
    return value


def _check_common_parts(parts: Mapping) -> None:
    """Check the parts of both formats."""
    if not isinstance(parts["network"], dict):
        raise InputError("its network is not an object")
    if not are_values(parts["options"]):
        raise InputError("its options are not plain values by name")
    if not parts["network"]:
        raise InputError("ResNet.build did not create its network; open it with stock Keras")
    try:
        check_arguments(**parts["network"])
    except TypeError as error:
        raise InputError(f"its network is not one of ResNet.build: {error}") from error
    check_history(parts["history"])
    progress = parts["epoch"], parts["batch"]
    if not all(map(is_count, progress)):
        raise InputError(f"its epoch and batch are {progress!a:.100}; expected whole numbers of at least 0")
    if progress[0] != epochs_of(parts["history"]):
        raise InputError(f"its epoch is {progress[0]}, but its history has {epochs_of(parts['history'])} epochs")


def _check_format_2(state: State) -> None:
    """Check the parts added by format 2."""
    network = list(layers(**state.network))
    if not isinstance(state.averaged, bool):
        raise InputError(f"its averaged is {state.averaged!a:.100}; expected true or false")
    size = [state.network[name] for name in ("height", "width", "depth")]
    shapes = size, size[2:], [2, *size[2:]]
    if state.normalization is not None and state.normalization not in shapes:
        expected = " or ".join(map(str, shapes))
        raise InputError(f"its normalization has shape {state.normalization!a:.100}; expected {expected}")
    if state.optimizer is not None:
        optimizer = state.optimizer
        if not isinstance(optimizer, dict) or optimizer.keys() != {"class_name", "config", "arrays"}:
            raise InputError("its optimizer is not an object with class_name, config and arrays")
        if not isinstance(optimizer["class_name"], (str, type(None))):
            raise InputError("its optimizer's class_name is not text")
        if not isinstance(optimizer["config"], (dict, type(None))):
            raise InputError("its optimizer's config is not an object")
        check_manifest(optimizer["arrays"], "optimizer")
        check_optimizer(optimizer["arrays"], network)
    check_manifest(state.metrics, "metrics")
    check_metrics(state.metrics)
    if state.batch and not (state.metrics and state.optimizer):
        raise InputError("it is inside an epoch, but lacks metrics or optimizer")
    if not isinstance(state.callbacks, dict):
        raise InputError("its callbacks are not an object")
    for name, value in state.callbacks.items():
        callback_state(f"{name!a:.100}", value)
    if not is_number(state.seconds) or not 0 <= state.seconds < 1e12:
        raise InputError(f"its seconds are {state.seconds!a:.100}; expected a number from 0 to 1e12")


def _from_format_1(parts: Mapping) -> State:
    """Convert a state of format 1, whose optimizer is always SGD, and whose record covers only the last process.

    The manifest has a momentum for every weight; `read_checkpoint` drops them for a file without momentum.
    """
    slots = [manifest_entry("iteration", (), "int64"), manifest_entry("learning_rate", (), "float32")]
    for layer in layers(**parts["network"]):
        for weight, shape in layer.trainable.items():
            slots.append(manifest_entry(f"{layer.name}_{weight}_momentum", shape, "float32"))
    metrics = ("loss/total", "loss/count", "accuracy/total", "accuracy/count")
    run = parts["history"]["run"]
    arguments, versions = run.get("arguments", {}), run.pop("versions", {})
    backend, device = "jax" if "jax" in versions else "tensorflow", run.pop("device", "")
    sitting = {"epoch": 0, "batch": 0, "backend": backend, "device": device, "versions": versions, "commit": None}
    precision = arguments.get("precision")
    run |= {"sittings": [sitting], "precision": precision if precision in PRECISIONS else PRECISIONS[0]}
    return State(
        **parts,
        averaged=bool(arguments.get("ema")),
        optimizer={"class_name": None, "config": None, "arrays": slots},
        metrics=[manifest_entry(name, (), "float32") for name in metrics],
    )
