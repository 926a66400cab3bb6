"""The memory of predictions, told from headers, against what the predictor itself expects of the volume."""

from pathlib import Path

import makers
import numpy as np
import pytest
import torch

from autospine.core.labels import parse_labels
from autospine.dataset.case_sizes import PROCESS_BYTES, case_need
from autospine.dataset.raw import Case
from autospine.inference.case_memory import CaseMemory
from autospine.io.images import read_volume, write_array
from autospine.memory.estimate import inference_memory
from autospine.models.model_folder import ModelFolder, open_model
from autospine.prediction.build_predictor import build_predictor
from autospine.prediction.prediction_memory import prediction_memory

MANY = parse_labels({"background": 0} | {f"class {number}": number for number in range(1, 27)})


def model(folder: Path, **changes) -> ModelFolder:
    makers.write_model(folder, labels=MANY, **changes)
    return open_model(folder)


def image(folder: Path, kind: type = np.int16) -> Case:
    path = folder / "case_0000.nii.gz"
    array = np.random.default_rng(0).integers(-500, 500, (40, 60, 50)).astype(kind)
    write_array(path, array, makers.grid(array.shape, spacing_mm=(3.0, 1.0, 1.0)))
    return Case(name="case", images=(path,), labels=None, modality=None, site=None, subject="case")


def announced(predicting: ModelFolder, case: Case) -> CaseMemory:
    """What the predictor expects the volume to take, once it has read it."""
    volume = read_volume(case.images)
    predictor = build_predictor([predicting], torch.device("cpu"), region_of_interest=False)
    return predictor.prepare(volume, "CT").memory


def networks_of(predicting: ModelFolder, case: CaseMemory, networks: int) -> int:
    configuration = predicting.configuration
    return inference_memory(
        configuration.network,
        configuration.patch_size,
        case=case,
        precision="float32",
        in_channels=1,
        out_channels=27,
        spacing_mm=configuration.spacing_mm,
        networks=networks,
    ).total


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_the_estimate_is_that_of_the_volume_and_of_all_folds(tmp_path, kind):
    predicting, case = model(tmp_path / "model", folds=("0", "1")), image(tmp_path, kind)
    expected = PROCESS_BYTES + networks_of(predicting, announced(predicting, case), 2)
    assert prediction_memory([predicting], [case]) == {"case": expected}
    fewer = prediction_memory([predicting], [case], ["1"])["case"]
    assert fewer == PROCESS_BYTES + networks_of(predicting, announced(predicting, case), 1)


def test_models_that_predict_together_hold_their_scores_side_by_side_and_the_image_once(tmp_path):
    first, second, case = model(tmp_path / "first"), model(tmp_path / "second"), image(tmp_path)
    alone, both = (prediction_memory(models, [case])["case"] for models in ([first], [first, second]))
    volume, nothing = announced(first, case), CaseMemory(image=0, scores=0)
    weights = networks_of(first, nothing, 2) - networks_of(first, nothing, 1)
    assert both - alone == volume.scores + weights


def test_an_image_whose_header_is_damaged_is_left_to_the_prediction(tmp_path):
    path = tmp_path / "case_0000.nii.gz"
    path.write_bytes(b"nothing")
    case = Case(name="case", images=(path,), labels=None, modality=None, site=None, subject="case")
    assert prediction_memory([model(tmp_path / "model")], [case]) == {"case": case_need(case).memory_bytes}
