"""Shards: files of images that are stored as JPEG or PNG files, not decoded. Modules load on first use."""

from pipeline.utils.lazy import names

__getattr__, __all__ = names(
    __name__,
    images="EncodedImages",
    reader="MAX_SHARDS SHARD ChannelSums Shard Shards check_texts find_shards mean_and_deviation shard_name",
    writer="ShardWriter",
)
