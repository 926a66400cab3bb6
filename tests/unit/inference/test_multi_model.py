from dataclasses import replace
from itertools import pairwise

import makers
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autospine.core.errors import ModelError
from autospine.core.labels import parse_labels
from autospine.inference.multi_model import JointPredictor, mean_bands
from autospine.inference.predictor import Predictor
from autospine.io.images import Volume


class Constant(torch.nn.Module):
    """The same probabilities everywhere."""

    def __init__(self, *probabilities: float) -> None:
        super().__init__()
        self.logits = torch.tensor(probabilities).log()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits.view(1, -1, 1, 1, 1).expand(1, -1, *image.shape[2:])


def predictor(*probabilities: float, labels=makers.LABELS, **changes) -> Predictor:
    plan = makers.plan(makers.configuration(**changes), labels=labels)
    return Predictor(
        plan=plan,
        configuration=plan.configurations[0],
        networks=[Constant(*probabilities)],
        device=torch.device("cpu"),
    )


def volume(shape=(30, 18, 20)) -> Volume:
    array = np.random.default_rng(0).integers(-100, 100, (1, *shape)).astype(np.int16)
    grid = makers.grid(shape)
    return Volume(array=array, grid=grid, stored=grid)


@given(cuts=st.lists(st.sets(st.integers(1, 11)), min_size=1, max_size=3))
def test_bands_of_any_heights_are_averaged_row_by_row(cuts):
    rng = np.random.default_rng(0)
    whole = [rng.random((2, 12, 3, 4), dtype=np.float32) for _ in cuts]
    streams = []
    for scores, cut in zip(whole, cuts, strict=True):
        edges = [0, *sorted(cut), 12]
        streams.append([(slice(a, b), scores[:, a:b]) for a, b in pairwise(edges)])
    found = list(mean_bands(streams))
    assert [rows.start for rows, _ in found] == [0, *(rows.stop for rows, _ in found[:-1])]
    np.testing.assert_allclose(np.concatenate([band for _, band in found], axis=1), sum(whole) / len(whole))
    assert all(scores.max() <= 1 for scores in whole), "the bands themselves are not changed"


def test_probabilities_are_averaged_not_votes():
    """Two models see a canal, faintly; a sure one of other patches and spacing sees bone."""
    sure = predictor(0.05, 0.9, 0.05, spacing_mm=(2.0, 1.0, 1.0), patch_size=(32, 16, 16))
    faint = predictor(0.3, 0.3, 0.4)
    alone = JointPredictor(predictors=[faint]).predict(volume(), "CT")
    assert set(np.unique(alone)) == {7}
    together = JointPredictor(predictors=[faint, sure, faint]).predict(volume(), "CT")
    assert set(np.unique(together)) == {3}


def test_one_model_predicts_as_it_does_alone():
    one = predictor(0.2, 0.5, 0.3)
    np.testing.assert_array_equal(
        JointPredictor(predictors=[one]).predict(volume(), "MR"), one.predict(volume(), "MR")
    )


def test_regions_are_decided_one_by_one():
    labels = parse_labels({"whole": [3, 7], "canal": [7]}, regions_class_order=(3, 7))
    networks = [predictor(0.9, 0.9, labels=labels), predictor(0.9, 1e-6, labels=labels)]
    # log p stands for a logit: sigmoid(log 0.9) is 0.47, and its mean with 0 is less.
    assert not JointPredictor(predictors=networks).predict(volume(), "CT").any()


def test_models_of_other_labels_or_channels_do_not_predict_together():
    other = parse_labels({"background": 0, "bone": 3, "disc": 9})
    with pytest.raises(ModelError, match=r"found bone, canal from image and bone, disc from image; predict"):
        JointPredictor(predictors=[predictor(1, 1, 1), predictor(1, 1, 1, labels=other)])
    one = predictor(1, 1, 1)
    two = replace(one, plan=replace(one.plan, channels=("image", "other")))
    with pytest.raises(ModelError, match="same labels and channels"):
        JointPredictor(predictors=[one, two])
