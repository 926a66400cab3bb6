import json

import pytest
import torch

from autospine.core.errors import WorkspaceError
from autospine.pipeline.demo_run import run_demo


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(WorkspaceError, match="found other files"):
        run_demo(tmp_path, minutes=1, seed=0, device=torch.device("cpu"))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.slow
def test_a_short_demo_writes_all_that_it_promises(tmp_path):
    folder = tmp_path / "demo"
    result = run_demo(folder, minutes=1.5, seed=0, device=torch.device("cpu"), cases=5, held_out=2)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert set(summary) == {"mean_dice", "mean_iou", "mean_recall", "dice", "seconds", "peak_gb"}
    assert set(summary["dice"]) == {"vertebra", "disc", "canal", "sacrum"}
    assert all(path.exists() for path in result.files.values())
    assert len(result.evaluation.cases) == 2
