"""A pipeline that trains residual networks: networks, data, callbacks, checkpoints, and exact stop and resume."""

import os

# TensorFlow reads these once, on import. Below level 3 its C++ core logs start-up details; errors reach Python as
# exceptions anyway. oneDNN's kernels are off by default on processors without AVX-512, although they halve a training
# step there (2.0 instead of 3.7 s for ResNet-56 at batch 128 on two Zen 3 cores).
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

MAX_IMAGE_PIXELS = 1 << 26
"""The largest image to decode, in pixels: 200 MB as an array. ImageNet has images of up to 5980 times 6430 pixels."""

# For untrusted files, whatever the environment says: HDF5 loads no filter plugins ("::" disables them), and OpenCV
# decodes no larger image.
os.environ["HDF5_PLUGIN_PRELOAD"] = "::"
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_IMAGE_PIXELS)
# An image is too small to split among threads; whole batches run in parallel instead.
os.environ["OPENCV_FOR_THREADS_NUM"] = "1"
# The project reports broken images itself, in one line.
os.environ["OPENCV_LOG_LEVEL"] = "ERROR"
