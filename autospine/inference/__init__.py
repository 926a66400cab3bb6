"""Ensembled sliding-window prediction on the input's own grid, in bounded memory."""

from autospine.inference.joint import JointPredictor
from autospine.inference.memory import CaseMemory, case_memory
from autospine.inference.mirror import Mirrored, exchanged_channels, with_mirrored
from autospine.inference.model import FINDER, WEIGHTS, ModelFolder, open_model, save_weights, weights_digest
from autospine.inference.predictor import Predictor, Work
from autospine.inference.probabilities import ENDING as PROBABILITIES
from autospine.inference.probabilities import (
    Probabilities,
    ProbabilityWriter,
    check_room,
    held_bytes,
    read_probabilities,
    stored_bytes,
)
from autospine.inference.record import RECORD, PredictedCase, UsedModel, add_to_record, read_record
from autospine.inference.tiles import FINDER_STEP, count_tiles, lay_tiles

__all__ = [
    "FINDER",
    "FINDER_STEP",
    "PROBABILITIES",
    "RECORD",
    "WEIGHTS",
    "CaseMemory",
    "JointPredictor",
    "Mirrored",
    "ModelFolder",
    "PredictedCase",
    "Predictor",
    "Probabilities",
    "ProbabilityWriter",
    "UsedModel",
    "Work",
    "add_to_record",
    "case_memory",
    "check_room",
    "count_tiles",
    "exchanged_channels",
    "held_bytes",
    "lay_tiles",
    "open_model",
    "read_probabilities",
    "read_record",
    "save_weights",
    "stored_bytes",
    "weights_digest",
    "with_mirrored",
]
