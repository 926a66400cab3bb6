"""Synthetic spines in CT and MR with exact labels."""

from autospine.phantom.generate import (
    STRUCTURES,
    Phantom,
    PhantomSettings,
    Region,
    Scheme,
    Variant,
    by_structure,
    generate,
)
from autospine.phantom.phantom_dataset import label_names, write_dataset

__all__ = [
    "STRUCTURES",
    "Phantom",
    "PhantomSettings",
    "Region",
    "Scheme",
    "Variant",
    "by_structure",
    "generate",
    "label_names",
    "write_dataset",
]
