"""Checkpoints and histories. Modules load on first use: reading a file needs no Keras."""

from pipeline.utils.lazy import names

__getattr__, __all__ = names(
    __name__, checkpoint="Checkpoint read_checkpoint", folder="CheckpointFolder", writer="Content save_checkpoint"
)
