"""Ensembled sliding-window prediction on the input's own grid, in bounded memory."""

from autospine.inference.joint import JointPredictor
from autospine.inference.model import WEIGHTS, ModelFolder, open_model, save_weights
from autospine.inference.predictor import Predictor
from autospine.inference.tiles import count_tiles

__all__ = [
    "WEIGHTS",
    "JointPredictor",
    "ModelFolder",
    "Predictor",
    "count_tiles",
    "open_model",
    "save_weights",
]
