"""A convolution that avoids a defect of TensorFlow's kernels, saved as the stock Keras layer."""

import keras

# Input channels that the defective kernel computes in one go.
_BLOCK = 16


class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D`, a strided 1x1 convolution of few channels spelled out where TensorFlow is the backend.

    In oneDNN, as TensorFlow 2.21 ships it, the weight gradient of a 1x1 convolution with a stride writes beyond its
    memory where the number of input channels is no multiple of 16, or on processors without AVX-512 is wrong. Taking
    every so many pixels first, and convolving without a stride, computes the same. Variables and configuration are the
    stock layer's.
    """

    def call(self, inputs):
        if not self._is_affected(inputs):
            return super().call(inputs)
        rows, columns = self.strides
        outputs = keras.ops.conv(
            inputs[:, ::rows, ::columns], self.kernel, padding="same", data_format=self.data_format
        )
        if self.use_bias:
            outputs = keras.ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)

    def _is_affected(self, inputs) -> bool:
        return (
            keras.backend.backend() == "tensorflow"
            and self.kernel_size == (1, 1)
            and self.strides != (1, 1)
            and self.data_format == "channels_last"
            and self.groups == 1
            and inputs.shape[-1] % _BLOCK != 0
        )
