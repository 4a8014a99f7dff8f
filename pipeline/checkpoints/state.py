"""The state of a run, as /run/state of a checkpoint holds it in JSON: everything but the arrays. Needs no Keras.

Format 2, an object with:

    format                2
    epoch, batch          completed epochs, and completed batches of the one under way
    network               the arguments of `ResNet.build`
    history               the run so far (see `pipeline.checkpoints.history`)
    options               how the process that wrote it went about the run
    averaged              whether /model_weights are averages, and /run/raw what training goes on with
    normalization         shape of /run/normalization, which is subtracted from an image; null if it isn't known
    optimizer             class_name and config of the Keras optimizer, without its learning rate, and arrays, the
                          manifest of what it holds; null in a file of weights alone
    metrics               the manifest of what loss and metrics hold, which is in the file inside an epoch alone
    callbacks             by name, the state of each callback that has one
    seconds               how long the epoch under way has taken

A manifest lists arrays, in the order of their numbers in the file: objects with name, shape and dtype. Format 1 has
epoch, batch, network, history and options alone.
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
"""The types of an optimizer's or a metric's arrays."""
MAX_SLOTS = 4
"""Arrays that an optimizer may have of each trainable weight's shape, and scalars for each, beside a few of its own."""
MAX_METRIC_NUMBERS = 1 << 16
MAX_CALLBACK_BYTES = 1 << 16
_OWN_SCALARS = 16
_MAX_METRIC_ARRAYS = 1024
_MAX_NAME = 200
_MAX_RANK = 8
_OF_FORMAT_1 = {"format", "epoch", "batch", "network", "history", "options"}


@dataclass(frozen=True, kw_only=True)
class State:
    """The state of a run; see this module for its parts."""

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
        """The state in format 2, whichever it was read from."""
        parts = {name: getattr(self, name) for name in State.__dataclass_fields__}
        return json.dumps(parts | {"format": FORMAT}, allow_nan=False).encode()


def manifest_entry(name: str, shape: Sequence[int], dtype: str) -> dict:
    """The entry of one array in a manifest."""
    return {"name": name, "shape": list(shape), "dtype": dtype}


def parse_state(content: bytes) -> State:
    """The state that `content` holds, of either format, each part checked.

    Raises:
        ValueError: it is not the state of a run.
    """
    parts = parse_json(content)
    if not isinstance(parts, dict):
        raise InputError("its state is not that of a run")
    version = parts.setdefault("format", 1)
    if version not in (1, FORMAT) or isinstance(version, (bool, float)):
        raise InputError(f"it is of format {version!a:.20}; this version reads 1 and {FORMAT}")
    if parts.keys() != (_OF_FORMAT_1 if version == 1 else State.__dataclass_fields__.keys()):
        raise InputError("its state is not that of a run")
    _check_run(parts)
    if version == 1:
        return _from_format_1(parts)
    state = State(**parts)
    _check_growth(state)
    return state


def check_optimizer(manifest: Sequence[dict], network: Sequence[Layer]) -> None:
    """Check that the arrays of an optimizer are scalars or have the shape of a trainable weight.

    Args:
        manifest: of the arrays, its form checked.
        network: the layers of the network that is trained.

    Raises:
        InputError: an array has another shape, or there are more than `MAX_SLOTS` a weight.
    """
    weights = Counter(tuple(shape) for layer in network for shape in layer.trainable.values())
    most = {shape: MAX_SLOTS * count for shape, count in weights.items()}
    most[()] = MAX_SLOTS * weights.total() + _OWN_SCALARS
    for shape, count in Counter(tuple(entry["shape"]) for entry in manifest).items():
        if count > most.get(shape, 0):
            name = next(entry["name"] for entry in manifest if tuple(entry["shape"]) == shape)
            if shape in most:
                raise InputError(
                    f"the optimizer has {count} arrays of shape {shape}; a checkpoint holds at most {MAX_SLOTS} for "
                    "each weight of that shape"
                )
            raise InputError(
                f"the optimizer's {name} has shape {shape!s:.100}, which is no trainable weight's; a checkpoint can't "
                "hold it: take another optimizer"
            )


def check_metrics(manifest: Sequence[dict]) -> None:
    """`InputError` if the metrics' arrays of `manifest`, its form checked, hold more than a checkpoint does."""
    numbers = sum(math.prod(entry["shape"]) for entry in manifest)
    if numbers > MAX_METRIC_NUMBERS or len(manifest) > _MAX_METRIC_ARRAYS:
        raise InputError(
            f"the metrics hold {min(numbers, 10**18):,} numbers in {len(manifest):,} arrays; expected at most "
            f"{MAX_METRIC_NUMBERS:,} in {_MAX_METRIC_ARRAYS:,}"
        )


def check_manifest(manifest: object, whose: str) -> None:
    """`InputError` unless `manifest` is a list of arrays' names, each once, shapes and dtypes; `whose` says of what."""
    if not isinstance(manifest, (list, tuple)):
        raise InputError(f"the manifest of the {whose} is not a list")
    names = set()
    for entry in manifest:
        if not isinstance(entry, dict) or entry.keys() != {"name", "shape", "dtype"}:
            raise InputError(f"the manifest of the {whose} has {entry!a:.100}; expected name, shape and dtype")
        name, shape, dtype = entry["name"], entry["shape"], entry["dtype"]
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _MAX_NAME:
            raise InputError(f"the manifest of the {whose} has the name {name!a:.100}; expected a printable text")
        if name in names:
            raise InputError(f"the manifest of the {whose} has the name {name!a:.100} twice")
        if not isinstance(shape, list) or len(shape) > _MAX_RANK or not all(is_count(size) and size for size in shape):
            raise InputError(f"{name} of the {whose} has shape {shape!a:.100}; expected up to 8 numbers of at least 1")
        if dtype not in DTYPES:
            raise InputError(f"{name} of the {whose} is {dtype!a:.100}; expected one of {', '.join(DTYPES)}")
        names.add(name)


def callback_state(name: str, state: object) -> object:
    """Return the `state` of the callback `name` as a checkpoint gives it back.

    Raises:
        InputError: JSON can't hold it, or it is larger than `MAX_CALLBACK_BYTES`.
    """
    try:
        text = json.dumps(state, allow_nan=False)
        value = parse_json(text.encode())  # as a file is read, which takes no more than 18 digits, say
    except (TypeError, ValueError) as error:
        raise InputError(f"get_state of {name} returns what a checkpoint can't hold: {error}") from error
    if len(text) > MAX_CALLBACK_BYTES:
        raise InputError(f"get_state of {name} returns {len(text):,} bytes; expected at most {MAX_CALLBACK_BYTES:,}")
    return value


def _check_run(parts: Mapping) -> None:
    """Check the parts that both formats have."""
    if not isinstance(parts["network"], dict) or not are_values(parts["options"]):
        raise InputError("its network or its options are not such as a run has")
    if not parts["network"]:
        raise InputError("ResNet.build did not make its network; stock Keras opens it")
    try:
        check_arguments(**parts["network"])
    except TypeError as error:
        raise InputError(f"its network is not one of ResNet.build: {error}") from error
    check_history(parts["history"])
    progress = parts["epoch"], parts["batch"]
    if not all(map(is_count, progress)) or progress[0] != epochs_of(parts["history"]):
        raise InputError("its state contradicts itself")


def _check_growth(state: State) -> None:
    """Check the parts that format 1 lacks."""
    network = list(layers(**state.network))
    if not isinstance(state.averaged, bool):
        raise InputError("its averaged is neither true nor false")
    size = [state.network[name] for name in ("height", "width", "depth")]
    if state.normalization not in (None, size, size[2:]):
        raise InputError(f"its normalization has shape {state.normalization!a:.100}; expected {size} or {size[2:]}")
    if state.optimizer is not None:
        optimizer = state.optimizer
        if not isinstance(optimizer, dict) or optimizer.keys() != {"class_name", "config", "arrays"}:
            raise InputError("its optimizer has no class_name, config and arrays")
        if not isinstance(optimizer["class_name"], (str, type(None))):
            raise InputError("its optimizer's class_name is no text")
        if not isinstance(optimizer["config"], (dict, type(None))):
            raise InputError("its optimizer's config is no object")
        check_manifest(optimizer["arrays"], "optimizer")
        check_optimizer(optimizer["arrays"], network)
    check_manifest(state.metrics, "metrics")
    check_metrics(state.metrics)
    if state.batch and not (state.metrics and state.optimizer):
        raise InputError("it is inside an epoch and holds no metrics or no optimizer")
    if not isinstance(state.callbacks, dict):
        raise InputError("its callbacks are no object")
    for name, of_callback in state.callbacks.items():
        callback_state(f"{name!a:.100}", of_callback)
    if not is_number(state.seconds) or not 0 <= state.seconds < 1e12:
        raise InputError(f"its seconds are {state.seconds!a:.100}; expected a number from 0 to 1e12")


def _from_format_1(parts: Mapping) -> State:
    """Translate a state of format 1, whose optimizer is always SGD, and whose record is of the last process alone.

    The manifest has momentum for every weight; the reader of a file without momentum leaves it out.
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
