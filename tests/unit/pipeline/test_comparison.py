"""Models that are compared by their held-out cases."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import makers
import pytest
import torch

from autospine.cli.model_tables import show_comparison
from autospine.pipeline.comparison import compare
from autospine.storage.workspace import Workspace

CASES = [f"case{i}" for i in range(1, 7)]
BASE = {name: 0.5 + i / 100 for i, name in enumerate(CASES)}


@pytest.fixture
def write_scores(tmp_path: Path, raw_dataset: Callable[..., Path]) -> Callable[..., None]:
    """Writes a model whose held-out cases have these scores."""
    raw_dataset(CASES)

    def write(name: str, dice: Mapping[str, float]) -> None:
        folder = tmp_path / "results" / "Dataset007_Test" / name
        makers.write_model(folder, folds=("0",))
        scores = {
            "format_version": 4,
            "mean_dice": sum(dice.values()) / len(dice),
            "modalities": {},
            "folds": {"0": {"cases": CASES, "weights": None}},
            "cases": {case: {"mean_dice": value} for case, value in dice.items()},
            "postprocessed": None,
        }
        (folder / "cross_validation.json").write_text(json.dumps(scores), encoding="utf-8")

    return write


def test_models_are_tested_against_the_best(tmp_path, write_scores, capsys):
    """One is worse in each of six cases, the other now better, now worse."""
    write_scores("best", BASE)
    write_scores("worse", {name: dice - 0.0101 - i / 1000 for i, (name, dice) in enumerate(BASE.items())})
    write_scores(
        "close", {name: dice + 0.001 * (-1) ** i - 0.0002 for i, (name, dice) in enumerate(BASE.items())}
    )
    location = Workspace(root=tmp_path).find_dataset("Dataset007")
    best = compare(location, device=torch.device("cpu"), ensembles=False)
    found = {each.name: each.p_value for each in best.candidates}
    assert list(found) == ["best", "close", "worse"]
    assert found["best"] is None
    assert found["worse"] == pytest.approx(2 * 2 / 2**6)
    assert found["close"] > 0.3
    show_comparison(best)
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("worse"))
    assert row.split()[1:3] == ["0.512", "0.062"]
