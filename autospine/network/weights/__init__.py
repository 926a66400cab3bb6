"""Weights that others have trained: reading, converting, importing."""

from autospine.network.weights.file import read_weights
from autospine.network.weights.import_report import ImportReport, StackingOrder
from autospine.network.weights.monai import load_monai, load_monai_file

__all__ = [
    "ImportReport",
    "StackingOrder",
    "load_monai",
    "load_monai_file",
    "read_weights",
]
