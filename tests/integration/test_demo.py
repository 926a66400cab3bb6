import json
import shutil

import makers
import pytest
import torch

from autospine.core.errors import WorkspaceError
from autospine.core.labels import parse_labels
from autospine.io.images import read_labels
from autospine.models.model_export import export_model
from autospine.models.model_folder import open_model
from autospine.pipeline import demo_run
from autospine.pipeline.demo_run import run_demo, run_fast_demo


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


def test_a_fast_demo_trains_nothing_and_draws_the_users_own_scan(tmp_path, monkeypatch):
    labels = parse_labels({"background": 0, "vertebra": 1, "disc": 2, "canal": 3, "sacrum": 4})
    coarse = makers.configuration(spacing_mm=(4.0, 4.0, 4.0))
    makers.write_model(tmp_path / "m", configurations=(coarse,), labels=labels)
    export_model(open_model(tmp_path / "m"), tmp_path / "starter.autospine")
    monkeypatch.setattr(demo_run, "starter", lambda: tmp_path / "starter.autospine")
    device, folder = torch.device("cpu"), tmp_path / "demo"
    first = run_fast_demo(folder, images=(), seed=0, device=device)
    assert set(first.files) == {"summary", "scores", "montage", "predictions"}
    assert len(first.evaluation.cases) == 2
    image = next((folder / "raw" / demo_run.DATASET / "imagesTr").iterdir())
    scan = tmp_path / "scan.nii.gz"
    shutil.copy(image, scan)
    result = run_fast_demo(folder, images=[scan], seed=0, device=device)
    assert (result.files["your scans"] / "scan_preview.png").is_file()
    assert read_labels(result.files["your scans"] / "scan.nii.gz").array.shape[0] == 1
    assert not (folder / "results").exists()
    assert result.evaluation.mean_dice == first.evaluation.mean_dice
