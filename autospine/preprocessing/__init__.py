"""From raw volumes to stored cases: crop, resample, normalise, store."""

from autospine.preprocessing.normalise import IntensityTransform
from autospine.preprocessing.prepare import Prepared, prepare_image, prepare_labels
from autospine.preprocessing.preprocess import preprocess_dataset
from autospine.preprocessing.resample import resample, resample_labels, target_shape, winning_channels
from autospine.preprocessing.store import StoredCase, open_case, open_cases

__all__ = [
    "IntensityTransform",
    "Prepared",
    "StoredCase",
    "open_case",
    "open_cases",
    "prepare_image",
    "prepare_labels",
    "preprocess_dataset",
    "resample",
    "resample_labels",
    "target_shape",
    "winning_channels",
]
