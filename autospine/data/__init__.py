"""Training patches: where they are cut, how they are changed, and how they reach the trainer."""

from autospine.data.loader import DataWorkerError, PatchBatches
from autospine.data.patches import Batch, PatchSource

__all__ = ["Batch", "DataWorkerError", "PatchBatches", "PatchSource"]
