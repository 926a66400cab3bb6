"""The stages, wired together: what the commands and the demo call."""

from autospine.evaluation.scores import evaluate_predictions as evaluate
from autospine.models.best import BEST, Best, choose_models
from autospine.models.localizer import find_localizer
from autospine.pipeline.comparison import compare
from autospine.pipeline.measuring import FINGERPRINT, FOLDS_FILE, check, fingerprint, make_phantoms
from autospine.pipeline.planning import PLAN, compare_budgets, plan, read_plan
from autospine.pipeline.training import (
    check_fold,
    comparable,
    folds_at_once,
    preprocess,
    sharers_of_cores,
    train,
)
from autospine.pipeline.weight_import import import_weights
from autospine.prediction.predict_cases import predict
from autospine.prediction.prediction_run import Predicted

__all__ = [
    "BEST",
    "FINGERPRINT",
    "FOLDS_FILE",
    "PLAN",
    "Best",
    "Predicted",
    "check",
    "check_fold",
    "choose_models",
    "comparable",
    "compare",
    "compare_budgets",
    "evaluate",
    "find_localizer",
    "fingerprint",
    "folds_at_once",
    "import_weights",
    "make_phantoms",
    "plan",
    "predict",
    "preprocess",
    "read_plan",
    "sharers_of_cores",
    "train",
]
