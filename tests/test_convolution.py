"""The weight gradient of strided 1x1 convolutions, for which oneDNN's kernel is defective."""

import subprocess
import sys

import pytest
from conftest import ROOT, SMALL

GRADIENTS = """
import itertools, sys
sys.path.insert(0, sys.argv[1])
import pipeline
import keras, numpy as np, tensorflow as tf
from pipeline.nn.convolution import Conv2D

rng = np.random.default_rng(0)
for batch, size, channels in itertools.product((1, 2, 3, 31), (8, 16), (1, 2, 3, 7, 8, 12, 16, 24)):
    images = rng.standard_normal((batch, size, size, channels)).astype(np.float32)
    layer = Conv2D(32, 1, strides=2, padding="same", use_bias=False)
    with tf.GradientTape() as tape:
        outputs = layer(images)
        loss = tf.reduce_sum(outputs**2)
    gradient = tape.gradient(loss, layer.kernel.value)
    # d loss / d kernel = 2 x^T (x kernel), over the pixels that are taken.
    pixels = images[:, ::2, ::2].reshape(-1, channels).astype(np.float64)
    kernel = np.asarray(layer.kernel[0, 0], np.float64)
    np.testing.assert_allclose(outputs.numpy().reshape(-1, 32), pixels @ kernel, atol=1e-4)
    np.testing.assert_allclose(gradient.numpy()[0, 0], 2 * pixels.T @ (pixels @ kernel), rtol=1e-3, atol=1e-2)
print("done")
"""


@pytest.mark.parametrize("cpu", ["AVX2", pytest.param("AVX512_CORE", marks=pytest.mark.sweep)])
def test_gradients_are_right_for_any_number_of_channels(cpu):
    words = [sys.executable, "-c", GRADIENTS, ROOT]
    done = subprocess.run(words, env={"ONEDNN_MAX_CPU_ISA": cpu}, capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr[-2000:]


def test_a_small_network_trains_one_image_a_step(command):
    flags = ("--stages", "1,1,1", "--filters", "8,8,16,32", "--limit", "12", "--batch_size", "1", "--epochs", "1")
    command("resnet_cifar10.py", *SMALL[:2], *flags)
