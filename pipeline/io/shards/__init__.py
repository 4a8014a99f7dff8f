"""Shards: files of images that are stored as JPEG or PNG files, not decoded. Modules load on first use."""

from pipeline.utils.lazy import names

__getattr__, __all__ = names(
    __name__,
    format="MAX_SHARDS SHARD ChannelSums check_texts find_shards mean_and_deviation shard_name",
    images="EncodedImages",
    reader="Shard Shards",
    writer="ShardWriter",
)
