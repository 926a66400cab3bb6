"""Ensembled sliding-window prediction on the input's own grid, in bounded memory."""

from autospine.inference.joint import JointPredictor
from autospine.inference.model import WEIGHTS, ModelFolder, open_model, save_weights
from autospine.inference.predictor import Predictor, Work
from autospine.inference.record import RECORD, PredictedCase, UsedModel, read_record, write_record
from autospine.inference.tiles import count_tiles

__all__ = [
    "RECORD",
    "WEIGHTS",
    "JointPredictor",
    "ModelFolder",
    "PredictedCase",
    "Predictor",
    "UsedModel",
    "Work",
    "count_tiles",
    "open_model",
    "read_record",
    "save_weights",
    "write_record",
]
