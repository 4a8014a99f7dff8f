"""The training pipeline: networks, data, callbacks, checkpoints and the run that joins them."""

import os

# TensorFlow reads these once, while it loads. Its C++ core logs every start-up detail below level 3; its failures
# reach Python as exceptions all the same. oneDNN's kernels are off by default on processors without AVX-512, where
# they halve a training step too (2.0 against 3.7 s for ResNet-56 at batch 128 on two Zen 3 cores).
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

MAX_IMAGE_PIXELS = 1 << 24
"""Of an image that is read, whatever its header claims: 50 MB."""

# A file from anyone is read with no more than it needs: HDF5 loads no filter from elsewhere ("::" turns its plugins
# off), and OpenCV takes no larger image, whatever the environment says.
os.environ["HDF5_PLUGIN_PRELOAD"] = "::"
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_IMAGE_PIXELS)
# An image is too small to share among threads: batches are what runs side by side.
os.environ["OPENCV_FOR_THREADS_NUM"] = "1"
# What is wrong with an image is said in one line, by us.
os.environ["OPENCV_LOG_LEVEL"] = "ERROR"
