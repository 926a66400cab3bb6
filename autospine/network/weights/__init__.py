"""Weights that others have trained: reading, converting, importing."""

from autospine.network.weights.file import read_weights
from autospine.network.weights.monai import ImportReport, StackingOrder, load_monai, load_monai_file

__all__ = [
    "ImportReport",
    "StackingOrder",
    "load_monai",
    "load_monai_file",
    "read_weights",
]
