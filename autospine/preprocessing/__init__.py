"""From raw volumes to stored cases: crop, resample, normalise, store."""

from autospine.preprocessing.normalise import IntensityTransform
from autospine.preprocessing.prepare import (
    Preparation,
    Prepared,
    begin_preparation,
    prepare_image,
    prepare_labels,
)
from autospine.preprocessing.preprocess import preprocess_dataset
from autospine.preprocessing.resample import (
    LinearAxis,
    resample,
    resample_labels,
    target_shape,
)
from autospine.preprocessing.store import StoredCase, open_case, open_cases
from autospine.storage.arrays import ArrayFormat, has_blosc2

__all__ = [
    "ArrayFormat",
    "IntensityTransform",
    "LinearAxis",
    "Preparation",
    "Prepared",
    "StoredCase",
    "begin_preparation",
    "has_blosc2",
    "open_case",
    "open_cases",
    "prepare_image",
    "prepare_labels",
    "preprocess_dataset",
    "resample",
    "resample_labels",
    "target_shape",
]
