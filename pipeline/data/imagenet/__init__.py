"""ImageNet (ILSVRC 2012): build sealed shards of the images as distributed, and train on them.

Modules load on first use: the build needs no data set.
"""

from pipeline.utils.lazy import names

__getattr__, __all__ = names(__name__, source="ImageNet")
