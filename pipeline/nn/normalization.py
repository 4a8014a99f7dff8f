"""Batch normalization through TensorFlow's fused kernel, saved as the stock Keras layer."""

import json

import keras

from pipeline.nn.convolution import Conv2D


class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` that uses one fused kernel on TensorFlow.

    Keras 3 computes the layer as a dozen elementwise operations; `FusedBatchNormV3` does the same arithmetic in one
    pass forward and one backward, which nearly halves a training step on a CPU. Variables, config and moving statistics
    are the stock layer's. Other backends, and inputs other than float16, bfloat16 or float32 tensors (batch, height,
    width, channels), take the stock path. Ioffe and Szegedy, arXiv:1502.03167.
    """

    def call(self, inputs, training=None, mask=None):
        if not self._is_fusable(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        learning = bool(training) and self.trainable
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=[] if learning else self.moving_mean,
            variance=[] if learning else self.moving_variance,
            epsilon=self.epsilon,
            is_training=learning,
        )
        if learning:
            # The kernel returns the unbiased variance, n / (n - 1) times the biased one that Keras averages.
            shape = tf.shape(inputs, out_type=tf.int64)
            count = tf.cast(shape[0] * shape[1] * shape[2], variance.dtype)
            self._move(self.moving_mean, mean)
            self._move(self.moving_variance, variance * ((count - 1.0) / count))
        return outputs

    def _is_fusable(self, inputs, mask) -> bool:
        return (
            keras.backend.backend() == "tensorflow"
            and mask is None
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and inputs.dtype in ("float16", "bfloat16", "float32")
            and self.scale
            and self.center
            and not (self.renorm or self.synchronized)
        )

    def _move(self, statistic, value) -> None:
        statistic.assign(statistic * self.momentum + value * (1.0 - self.momentum))


def stock_config(model: keras.Model) -> str:
    """Return the JSON config of `model` with stock layers only, so that Keras 3 rebuilds it without this project."""
    config = json.loads(model.to_json())
    config.pop("compile_config", None)
    for layer in config["config"]["layers"]:
        if layer["class_name"] in (BatchNormalization.__name__, Conv2D.__name__):
            layer.update(module="keras.layers", registered_name=None)
    return json.dumps(config)
