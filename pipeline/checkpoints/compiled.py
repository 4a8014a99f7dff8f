"""A compiled model as a checkpoint holds it: its arrays by name, and their description."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np

from pipeline.checkpoints.history import MAX_METRIC_NAME, PRECISIONS, RESERVED
from pipeline.checkpoints.state import check_manifest, check_metrics, check_optimizer, manifest_entry
from pipeline.errors import InputError, refusing
from pipeline.nn.average import MovingAverage
from pipeline.nn.conv.layout import layers
from pipeline.nn.optimizer import base_learning_rate


def check_compiled(model: keras.Model) -> None:
    """Build the optimizer and the metrics of the compiled `model`, and check that a checkpoint can hold them.

    Raises:
        InputError: the model is none of `ResNet.build`, the learning rate is a schedule, the optimizer has arrays of
            another shape than a weight's, or a metric is more than one number, or too large.
    """
    if not getattr(model, "network", None):
        raise InputError("the model is not one of ResNet.build, which alone a checkpoint can hold")
    optimizer = model.optimizer
    name = type(optimizer).__name__
    if precision_of(model) not in PRECISIONS:
        raise InputError(f"the model computes in {precision_of(model)}; expected {' or '.join(PRECISIONS)}")
    if base_learning_rate(optimizer) == 0:
        raise InputError(f"the learning rate of {name} is 0; expected a number above 0")
    if not isinstance(base_learning_rate(optimizer), float):
        raise InputError(
            f"the learning rate of {name} is a schedule, which knows nothing of a stop; give it a number, and the "
            "schedule to a callback"
        )
    if model.steps_per_execution != 1:
        raise InputError(
            f"steps_per_execution is {model.steps_per_execution}; expected 1: a stop is met after each step"
        )
    if optimizer.use_ema:
        raise InputError(f"use_ema of {name} averages beyond the reach of a checkpoint; average with `ema`")
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    arrays = optimizer_record(optimizer)["arrays"]
    with refusing(InputError, f"{name}: "):
        check_manifest(arrays, "optimizer")
        check_optimizer(arrays, list(layers(**model.network)))
    build_metrics(model)
    manifest = metrics_manifest(model)
    check_manifest(manifest, "metrics")
    check_metrics(manifest)
    for metric, result in model.get_metrics_result().items():
        is_taken = metric in RESERVED or metric.startswith(("val_", "ema_val_"))
        if is_taken or not metric.isprintable() or len(metric) > MAX_METRIC_NAME:
            raise InputError(f"a metric is called {metric!a:.100}, which a history can't hold; give it another name")
        if keras.ops.size(result) != 1:
            raise InputError(f"the metric {metric} is {keras.ops.size(result)} numbers; expected one, for a curve")
    model.reset_metrics()


def precision_of(model: keras.Model) -> str:
    """The dtype policy that `model`, one of `ResNet.build`, computes in."""
    return model.get_layer("conv1").dtype_policy.name


def build_metrics(model: keras.Model) -> None:
    """Create the variables of the metrics of `model`, which Keras does when it first measures something."""
    nothing = keras.ops.zeros((1, *model.output_shape[1:]))
    model.compute_metrics(None, nothing, nothing)


def weights_by_name(model: keras.Model) -> dict[str, keras.Variable]:
    """The weights of `model` by the names of their arrays in a checkpoint."""
    return {f"model_weights/{layer.name}/{weight.path}": weight for layer in model.layers for weight in layer.weights}


def raw_by_name(model: keras.Model) -> dict[str, keras.Variable]:
    """The weights of `model` by the names of the arrays that training goes on with where averages take their place."""
    return {f"run/raw/{weight.path}": weight for weight in model.weights}


def optimizer_by_name(optimizer: keras.optimizers.Optimizer) -> dict[str, keras.Variable]:
    """The variables of `optimizer` by the names of their arrays in a checkpoint."""
    return {f"run/optimizer/{number}": variable for number, variable in enumerate(optimizer.variables)}


def metrics_by_name(model: keras.Model) -> dict[str, keras.Variable]:
    """The running loss and metrics of `model` by the names of their arrays in a checkpoint."""
    return {f"run/metrics/{number}": variable for number, variable in enumerate(model.metrics_variables)}


def metric_state(model: keras.Model) -> list[np.ndarray]:
    """The running loss and metrics of `model`, to be saved inside an epoch."""
    return [keras.ops.convert_to_numpy(variable) for variable in metrics_by_name(model).values()]


def arrays_of(model: keras.Model, average: MovingAverage | None = None) -> dict[str, np.ndarray]:
    """The weights of `model` and the state of its optimizer, if it has one, by their names in a checkpoint.

    With an `average` the weights that Keras finds are the averaged ones, beside those that training goes on with.
    """
    weights = weights_by_name(model)
    variables = weights | (optimizer_by_name(model.optimizer) if model.optimizer else {})
    arrays = {name: keras.ops.convert_to_numpy(variable) for name, variable in variables.items()}
    if average is not None:
        averages, raw = average.arrays(), average.raw_arrays()
        arrays |= {name: averages[variable.path] for name, variable in weights.items()}
        arrays |= {name: raw[variable.path] for name, variable in raw_by_name(model).items()}
    return arrays


def optimizer_record(optimizer: keras.optimizers.Optimizer) -> dict:
    """Describe `optimizer` for a checkpoint: class, configuration without the rate, manifest of its arrays."""
    # Keras numbers names by what the process has made before.
    config = {name: value for name, value in _config(optimizer).items() if name not in ("name", "learning_rate")}
    return {
        "class_name": type(optimizer).__name__,
        "config": json.loads(json.dumps(config, default=lambda value: type(value).__name__)),
        "arrays": _manifest(optimizer.variables, [variable.path.split("/")[-1] for variable in optimizer.variables]),
    }


def metrics_manifest(model: keras.Model) -> list[dict]:
    """Describe the running loss and metrics of `model` for a checkpoint: the manifest of their arrays."""
    return _manifest(model.metrics_variables, [variable.path for variable in model.metrics_variables])


def check_same_optimizer(saved: Mapping, compiled: Mapping) -> None:
    """Raise `InputError` that names the first difference of the `optimizer_record` in a file and a compiled one.

    A record of format 1 has neither class nor configuration, and those are not compared.
    """
    ours, theirs = saved["class_name"], compiled["class_name"]
    if ours not in (None, theirs):
        raise InputError(f"it was trained with {ours!a:.100}, and the model is compiled with {theirs}")
    if saved["config"] is not None:
        for name in dict.fromkeys((*saved["config"], *compiled["config"])):
            # A value of one version of Keras that another lacks is null, or off.
            before, now = saved["config"].get(name), compiled["config"].get(name)
            if before != now:
                raise InputError(
                    f"it was trained with {name!a:.100} {before!a:.100} of {theirs}, and now it is {now!a:.100}"
                )
    check_same_arrays(saved["arrays"], compiled["arrays"], f"optimizer {theirs}")


def check_same_arrays(saved: Sequence[Mapping], compiled: Sequence[Mapping], whose: str) -> None:
    """Raise `InputError` that names the first difference of the manifest in a file and that of a compiled model."""
    for before, now in zip(saved, compiled, strict=False):
        if (before["name"], before["shape"]) != (now["name"], now["shape"]) or not _is_same(before, now):
            raise InputError(f"{whose}: it holds {_described(before)}, and the model {_described(now)}")
    if len(saved) != len(compiled):
        more, less = (saved, compiled) if len(saved) > len(compiled) else (compiled, saved)
        holder, lacks = ("it holds", "the model lacks") if more is saved else ("the model has", "it lacks")
        raise InputError(f"{whose}: {holder} {_described(more[len(less)])}, which {lacks}")


def _is_same(before: Mapping, now: Mapping) -> bool:
    # The width of the step counter is the backend's own choice.
    kinds = {np.dtype(entry["dtype"]).kind for entry in (before, now)}
    return before["dtype"] == now["dtype"] or (not now["shape"] and kinds <= {"i", "u"})


def _described(entry: Mapping) -> str:
    return f"{entry['name']!a:.100} ({entry['dtype']}, shape {tuple(entry['shape'])!a:.100})"


def _config(optimizer: keras.optimizers.Optimizer) -> dict:
    """The configuration of `optimizer`, of one that scales the loss that of the one within, and the scaling's."""
    config = optimizer.get_config()
    inner = getattr(optimizer, "inner_optimizer", None)
    return config if inner is None else config | {"inner_optimizer": type(inner).__name__} | inner.get_config()


def _manifest(variables: Iterable[keras.Variable], names: Sequence[str]) -> list[dict]:
    """The manifest of `variables`; of equal `names` all but the first get a number."""
    seen, manifest = Counter(), []
    for variable, name in zip(variables, names, strict=True):
        name = re.sub(r"(^|/)variable_\d+$", r"\1variable", name)  # of one without a name, numbered by the process
        seen[name] += 1
        unique = name if seen[name] == 1 else f"{name}_{seen[name]}"
        manifest.append(manifest_entry(unique, variable.shape, keras.backend.standardize_dtype(variable.dtype)))
    return manifest
