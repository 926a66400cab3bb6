"""Ensembled sliding-window prediction on the input's own grid."""

from autospine.inference.model import WEIGHTS, ModelFolder, open_model, save_weights
from autospine.inference.predictor import Predictor
from autospine.inference.sliding_window import class_probabilities, count_tiles

__all__ = [
    "WEIGHTS",
    "ModelFolder",
    "Predictor",
    "class_probabilities",
    "count_tiles",
    "open_model",
    "save_weights",
]
