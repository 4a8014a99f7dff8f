"""Train a run from its first step to its last, with exact resume, and report its accuracy."""

from pipeline.training.loop import fit
from pipeline.training.reports import report
from pipeline.training.runs import Run

__all__ = ["Run", "fit", "report"]
