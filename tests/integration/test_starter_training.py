"""The starter is trained from phantoms alone, goes on where it was stopped, and becomes one file."""

from pathlib import Path

import pytest

from autospine.dataset.raw import load_dataset
from autospine.models.archive import opened_model
from autospine.pipeline import starter_training
from autospine.pipeline.starter_training import StarterRound, train_starter


@pytest.mark.slow
def test_a_starter_is_trained_exported_and_kept(tmp_path: Path) -> None:
    rounds = (
        StarterRound(epochs=1, foreground=0.5),
        StarterRound(epochs=1, learning_rate=0.3, foreground=0.75),
    )
    bundle = train_starter(tmp_path, rounds=rounds, cases=5, steps=2)
    dataset = load_dataset(tmp_path / "raw" / starter_training.DATASET)
    assert all(case.tissues is not None for case in dataset.cases)
    with opened_model(bundle) as model:
        assert model.plan.labels.names == ("vertebra", "disc", "canal", "sacrum")
        assert model.configuration.spacing_mm == starter_training.SPACING_MM
        assert model.configuration.patch_size == starter_training.PATCH
        recipe = model.configuration.training
        assert (recipe.learning_rate, recipe.oversample_foreground_fraction) == (0.3, 0.75)
        assert model.configuration.augmentation.synthesis_probability == starter_training.SYNTHESIS
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert len(before) == 2  # the second round began from the first
    train_starter(tmp_path, rounds=rounds, cases=5, steps=2)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == before
