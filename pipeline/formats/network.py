"""Make the network that is exported: its input are images as they are read, and its layers are stock layers."""

import keras
import numpy as np

from pipeline.nn.normalization import stock_config
from pipeline.preprocessing import Normalization


def classifier_of(model: keras.Model, normalization: Normalization, colours: str) -> keras.Model:
    """Return the network from uint8 RGB images (n, height, width, 3) to float32 probabilities (n, classes).

    Args:
        model: a network from `ResNet.build`, which computes in float32.
        normalization: that of its images.
        colours: the order of their channels, "RGB" or "BGR".
    """
    stock = keras.models.model_from_json(stock_config(model))
    stock.set_weights(model.get_weights())
    parameters = normalization.parameters
    mean, deviation = parameters if parameters.ndim == 2 else (parameters, np.ones(1, np.float32))
    if colours == "BGR":
        # With the channels of the first layers in the order RGB, no format needs to swap those of images.
        for layer in (stock.get_layer("input_bn"), stock.get_layer("conv1")):
            layer.set_weights([np.flip(weight, axis=max(weight.ndim - 2, 0)) for weight in layer.get_weights()])
        mean, deviation = np.flip(mean, axis=-1), np.flip(deviation)
    images = keras.Input(model.input_shape[1:], dtype="uint8", name="images")
    normalized = keras.layers.Rescaling(1 / deviation, -mean / deviation, name="normalization")(images)
    return keras.Model(images, stock(normalized), name="classifier")
