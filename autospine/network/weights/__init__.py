"""Weights that others have trained: reading, converting, importing."""

from autospine.network.weights.file import read_weights
from autospine.network.weights.monai import ImportReport, StackingOrder, load_monai, load_monai_file
from autospine.network.weights.stored import ImportedWeights, digest, load_imported, save_imported

__all__ = [
    "ImportReport",
    "ImportedWeights",
    "StackingOrder",
    "digest",
    "load_imported",
    "load_monai",
    "load_monai_file",
    "read_weights",
    "save_imported",
]
