"""Every network that comes with AutoSpine can be planned."""

import pytest
import torch
from unit.planners import facts

from autospine.plan import build_network, built_in_networks
from planners.networks.network_request import known_networks
from planners.overrides import Overrides
from planners.planner import make_plan
from planners.sizing import Budget

BUDGET = Budget(memory_bytes=4 * 1024**3, gpu=False, precision="float32", reason="a test")


def test_the_names_are_those_that_plans_state():
    assert built_in_networks() == (
        *("adaptive_swin_unetr", "swin_unetr"),
        *("cnn3d", "unet3d", "unet3d_transformer", "resenc_unet"),
    )
    assert known_networks()[: len(built_in_networks())] == built_in_networks()


@pytest.mark.parametrize("name", built_in_networks())
def test_each_is_planned_under_its_own_name(name):
    plan = make_plan(
        facts.dataset(facts.plain_labels(2)),
        facts.fingerprint([((30, 26, 28), (3.0, 3.0, 3.0))], [9.0, 14.0]),
        BUDGET,
        Overrides(networks=(name,)),
    )
    assert {configuration.network.name for configuration in plan.configurations} == {name}


@pytest.mark.parametrize("name", built_in_networks())
def test_a_plan_like_that_of_a_model_has_its_network(name):
    """Weights of the model fit, whatever the dataset is like."""
    model = make_plan(
        facts.dataset(facts.plain_labels(2)),
        facts.fingerprint([((90, 70, 70), (3.0, 3.0, 3.0))], [9.0, 14.0]),
        BUDGET,
        Overrides(networks=(name,), spacing_mm=(3.0, 3.0, 3.0)),
    ).configuration(f"fullres{'' if name == 'adaptive_swin_unetr' else '_' + name}")
    other = make_plan(
        facts.dataset(facts.plain_labels(3)),
        facts.fingerprint([((400, 300, 30), (0.7, 0.7, 4.0)), ((200, 220, 40), (1.0, 1.0, 3.0))], [4.0] * 3),
        BUDGET,
        Overrides(checkpointing=True).like(model),
    )
    planned = other.configuration(model.name)
    assert planned.spacing_mm == model.spacing_mm
    assert planned.patch_size == model.patch_size
    with torch.device("meta"):
        theirs = [
            build_network(model_plan, each).state_dict()
            for model_plan, each in ((other, model), (other, planned))
        ]
    shapes = [{key: tensor.shape for key, tensor in one.items()} for one in theirs]
    alike = [key for key in shapes[0] if shapes[1].get(key) == shapes[0][key]]
    assert len(alike) >= 0.95 * len(shapes[0])
