"""An exponential moving average of a network's weights."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import keras
import numpy as np


class MovingAverage:
    """An exponential moving average of all weights of `model`, including the statistics of batch normalization.

    After each step, average <- d * average + (1 - d) * weights, with d = min(decay, (1 + n) / (10 + n)) at step n,
    counted from 0: the ramp of TensorFlow's `tf.train.ExponentialMovingAverage`, which soon forgets the initial
    weights. Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; for networks, Tarvainen
    and Valpola, arXiv:1703.01780. One compiled call updates all weights as one vector, at almost no cost.

    Args:
        model: a built network. Call `update` after each training step.
        decay: above 0 and below 1.
        steps: number of steps already taken.
    """

    def __init__(self, model: keras.Model, decay: float, steps: int = 0) -> None:
        self.decay = decay
        self.steps = steps
        self._model = model
        # The order of the variables in the state of Keras' JAX trainer.
        self._variables = [*model.trainable_variables, *model.non_trainable_variables]
        self._average = _flat([variable.value for variable in self._variables])
        self._raw: dict[str, np.ndarray] | None = None
        self._step = self._compiled_step()

    def update(self) -> None:
        """Update the average with the weights after a step."""
        rest = 1.0 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        self._average = self._step(self._average, keras.ops.convert_to_tensor(rest, "float32"))
        self.steps += 1

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the averages by the paths of their variables, such as `conv1/kernel`."""
        ends = np.cumsum([np.prod(variable.shape, dtype=int) for variable in self._variables])
        parts = np.split(keras.ops.convert_to_numpy(self._average), ends[:-1])
        return {
            variable.path: part.reshape(variable.shape) for variable, part in zip(self._variables, parts, strict=True)
        }

    def raw_arrays(self) -> dict[str, np.ndarray]:
        """Return the raw weights by the paths of their variables, also while the averages are swapped in."""
        if self._raw is not None:
            return self._raw
        return {variable.path: keras.ops.convert_to_numpy(variable) for variable in self._variables}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Restore averages, given by the paths of their variables."""
        values = [arrays[variable.path] for variable in self._variables]
        self._average = _flat([keras.ops.convert_to_tensor(value, "float32") for value in values])

    def swap_in(self) -> None:
        """Assign the averages to the model's weights."""
        self._raw = self.raw_arrays()
        self._assign(self.arrays())

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Assign the averages to the model's weights inside this context, and the raw weights after it."""
        self.swap_in()
        try:
            yield
        finally:
            if keras.backend.backend() == "jax":
                # An interrupted evaluation has not synchronized its state, the averages, yet.
                self._model.jax_state_sync()
            self._assign(self._raw)
            self._raw = None

    def _assign(self, arrays: Mapping[str, np.ndarray]) -> None:
        for variable in self._variables:
            variable.assign(arrays[variable.path])

    def _compiled_step(self) -> Callable:
        """Compile (average, rest) -> average + rest * (weights - average)."""

        def blended(average, rest, weights):
            return average + rest * (_flat(weights) - average)

        if keras.backend.backend() == "jax":
            import jax

            compiled = jax.jit(blended)
            # Inside an epoch JAX's state lives outside the model's variables.
            parts = ("trainable_variables", "non_trainable_variables")
            return lambda average, rest: compiled(
                average, rest, [value for part in parts for value in self._model._jax_state[part]]
            )
        import tensorflow as tf

        return tf.function(lambda average, rest: blended(average, rest, [v.value for v in self._variables]))


def _flat(values: list):
    """Concatenate `values`, backend tensors, into one vector."""
    return keras.ops.concatenate([keras.ops.reshape(value, (-1,)) for value in values])
