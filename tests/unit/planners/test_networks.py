"""Every network that comes with AutoSpine can be planned."""

import pytest
from unit.planners import facts

from autospine.plan import built_in_networks
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
