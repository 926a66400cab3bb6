import json
from dataclasses import replace

import makers
import numpy as np
import pytest
import torch

from autospine.core.errors import AutospineError, PlanError
from autospine.pipeline.measuring import fingerprint
from autospine.pipeline.planned_dataset import PlannedDataset
from autospine.pipeline.planning import choose_planned_device, compare_budgets, plan
from autospine.pipeline.training import warn_of_another_device
from autospine.plan import Plan
from autospine.storage.serialization import read_json
from autospine.storage.trained_models import PLAN
from autospine.storage.workspace import Workspace
from autospine.system.cards import memory_budget

GIB = 1024**3
CPU = torch.device("cpu")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU")


def test_the_device_to_plan_for_is_that_of_its_name_or_kind():
    assert choose_planned_device(None, "cpu") == CPU
    assert choose_planned_device("cpu", "auto") == CPU
    for kind, name in (("gpu", "cpu"), ("cpu", "cuda"), ("cpu", "cuda:1")):
        with pytest.raises(PlanError, match=rf"--for {kind} .*--device {name}; leave one out"):
            choose_planned_device(kind, name)


@without_gpu
def test_a_gpu_of_another_machine_is_planned_for():
    assert choose_planned_device("gpu", "auto") is None
    with pytest.raises(AutospineError, match="--device cuda"):
        choose_planned_device("gpu", "cuda")


def test_of_a_named_gpu_less_is_planned_for_than_it_is_sold_with():
    amount, reason = memory_budget(None, "80GB")
    assert amount == int(0.9 * 80 * GIB) < 0.93 * 79.2 * GIB
    assert "90% of --memory 80GB" in reason
    with pytest.raises(PlanError, match="--memory 24GB"):
        memory_budget(None)


NAME = "Dataset007_Small"


@pytest.fixture
def location(tmp_path):
    """A measured dataset of two small cases."""
    labels = np.asarray([0, 3, 7], dtype=np.uint8)[makers.column((24, 22, 24))]
    makers.dataset_of(tmp_path / "raw" / NAME, {"a": labels, "b": labels})
    described = {
        "channel_names": {"0": "image"},
        "labels": {"background": 0, "bone": 3, "canal": 7},
        "file_ending": ".nii.gz",
    }
    (tmp_path / "raw" / NAME / "dataset.json").write_text(json.dumps(described))
    found = Workspace(root=tmp_path).find_dataset(NAME)
    fingerprint(found, workers=1)
    return found


def test_a_plan_says_which_kind_of_device_it_is_for(location):
    elsewhere = plan(location, device=None, memory="24GB")
    assert (elsewhere.device, elsewhere.memory_budget_bytes) == ("gpu", int(0.9 * 24 * GIB))
    assert elsewhere.configurations[0].name == "fullres"
    assert elsewhere.configurations[0].training.precision == "bfloat16"
    assert read_json(location.preprocessed / PLAN, Plan) == elsewhere
    assert compare_budgets(location, ["4GB", "8GB"], device=None, overrides=None)[1].device == "gpu"
    with pytest.raises(PlanError, match=r"--calibrate with --for gpu.*calibrate where"):
        plan(location, device=None, memory="24GB", measure_memory=True)
    assert plan(location, device=CPU, memory="2GB").device == "cpu"


def test_a_plan_of_an_earlier_version_is_read_without_its_device(location):
    plan(location, device=CPU, memory="2GB")
    path = location.preprocessed / PLAN
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["device"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert read_json(path, Plan).device is None


@pytest.mark.parametrize(
    ("kind", "device", "said"),
    [
        ("gpu", "cpu", "is for a GPU, and training runs on cpu: steps take long"),
        ("cpu", "cuda", "is for a CPU, and training runs on cuda: patches, network and schedule"),
        ("gpu", "cuda:1", None),
        ("cpu", "cpu", None),
        (None, "cuda", None),
    ],
)
def test_training_on_another_kind_of_device_than_planned_for_is_warned_of(
    location, caplog, kind, device, said
):
    made = replace(plan(location, device=CPU, memory="2GB"), device=kind)
    caplog.clear()
    planned = PlannedDataset(
        location=location, plan=made, configuration=made.configurations[0], folds_file=None
    )
    warn_of_another_device(planned, torch.device(device))
    assert (said or "") in caplog.text
    assert bool(caplog.text) == bool(said)
    if said:
        assert f"--for {'cpu' if kind == 'gpu' else 'gpu'}`" in caplog.text
