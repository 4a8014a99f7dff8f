"""A convolution that works around a defect of TensorFlow's kernels, saved as the stock Keras layer."""

import keras

# With at least this many input channels the kernel is correct.
_ENOUGH_CHANNELS = 16


class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` that computes strided 1x1 convolutions of few channels differently on TensorFlow.

    In oneDNN 3.7, which TensorFlow 2.21 ships, the weight gradient of a strided 1x1 convolution with fewer than 16
    input channels writes out of bounds, or is wrong on processors without AVX-512. Subsampling the input and convolving
    without stride is equivalent. Variables and config are the stock layer's.
    """

    def call(self, inputs):
        if not self._is_affected(inputs):
            return super().call(inputs)
        # Pooling over one pixel subsamples; its gradient costs half of a slice's.
        pixels = keras.ops.average_pool(inputs, 1, self.strides, data_format=self.data_format)
        outputs = keras.ops.conv(pixels, self.kernel, padding="same", data_format=self.data_format)
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
            and inputs.shape[-1] < _ENOUGH_CHANNELS
        )
