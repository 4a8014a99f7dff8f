"""ImageNet (ILSVRC 2012): find the images as distributed, and build sealed shards of them."""
