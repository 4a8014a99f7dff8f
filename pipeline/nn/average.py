"""An exponential moving average of a network's weights."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import keras
import numpy as np


class MovingAverage:
    """The average of all weights of `model`, the statistics of batch normalisation included, over the steps so far.

    After each step average <- d * average + (1 - d) * weights, with d = min(decay, (1 + n) / (10 + n)) at step n, so
    that what the network was at first is soon forgotten: the ramp of TensorFlow's `tf.train.ExponentialMovingAverage`.
    Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; of networks, Tarvainen and
    Valpola, arXiv:1703.01780. All weights are one vector to it, in one compiled call: a step costs next to nothing
    more.

    Args:
        model: a built network. Whoever trains it calls `update` after each step.
        decay: above 0, below 1.
        steps: number of steps that were taken already.
    """

    def __init__(self, model: keras.Model, decay: float, steps: int = 0) -> None:
        self.decay = decay
        self.steps = steps
        self._model = model
        # As the JAX trainer orders them.
        self._variables = [*model.trainable_variables, *model.non_trainable_variables]
        self._average = _flat([variable.value for variable in self._variables])
        self._raw: dict[str, np.ndarray] | None = None
        self._step = self._compiled_step()

    def update(self) -> None:
        """Take the weights after a step into the average."""
        rest = 1.0 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        self._average = self._step(self._average, keras.ops.convert_to_tensor(rest, "float32"))
        self.steps += 1

    def arrays(self) -> dict[str, np.ndarray]:
        """The averages by the paths of their variables, as `conv1/kernel`."""
        ends = np.cumsum([np.prod(variable.shape, dtype=int) for variable in self._variables])
        parts = np.split(keras.ops.convert_to_numpy(self._average), ends[:-1])
        return {
            variable.path: part.reshape(variable.shape) for variable, part in zip(self._variables, parts, strict=True)
        }

    def raw_arrays(self) -> dict[str, np.ndarray]:
        """The weights that training goes on with, by the paths of their variables, also while the averages are in."""
        if self._raw is not None:
            return self._raw
        return {variable.path: keras.ops.convert_to_numpy(variable) for variable in self._variables}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from averages by the paths of their variables, to the bit."""
        values = [arrays[variable.path] for variable in self._variables]
        self._average = _flat([keras.ops.convert_to_tensor(value, "float32") for value in values])

    def put_in(self) -> None:
        """Make the averages the weights of the model."""
        self._raw = self.raw_arrays()
        self._assign(self.arrays())

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Make the averages the weights of the model for a while."""
        self.put_in()
        try:
            yield
        finally:
            if keras.backend.backend() == "jax":
                # An evaluation that was broken off has its state, the averages, still to hand back.
                self._model.jax_state_sync()
            self._assign(self._raw)
            self._raw = None

    def _assign(self, arrays: Mapping[str, np.ndarray]) -> None:
        for variable in self._variables:
            variable.assign(arrays[variable.path])

    def _compiled_step(self) -> Callable:
        """(average, rest) -> the average with a share `rest` of the weights as they are now."""

        def blended(average, rest, weights):
            return average + rest * (_flat(weights) - average)

        if keras.backend.backend() == "jax":
            import jax

            compiled = jax.jit(blended)
            # Within an epoch the state lives outside of the model's variables there.
            state = ("trainable_variables", "non_trainable_variables")
            return lambda average, rest: compiled(
                average, rest, [value for kind in state for value in self._model._jax_state[kind]]
            )
        import tensorflow as tf

        return tf.function(lambda average, rest: blended(average, rest, [v.value for v in self._variables]))


def _flat(values: list):
    """All numbers of `values`, backend tensors, in one vector."""
    return keras.ops.concatenate([keras.ops.reshape(value, (-1,)) for value in values])
