"""Networks of other distributions: found, planned, built and measured, and named where they fail."""

import sys
from pathlib import Path

import makers
import pytest
import torch
from unit.planners import facts

from autospine.core.errors import PlanError
from autospine.inference.case_memory import CaseMemory
from autospine.memory.estimate import inference_memory, training_memory
from autospine.network.external import external_names
from autospine.plan import Plan, build_network
from autospine.storage.serialization import from_json, to_json
from planners.networks.network_request import known_networks
from planners.overrides import Overrides
from planners.planner import make_plan
from planners.sizing import Budget

FACTORY = """
from torch import nn


def make(in_channels, out_channels, spacing_mm, patch_size, width=4):
    network = nn.Conv3d(in_channels, out_channels, 3, padding=1)
    network.width, network.divisor = width, (2, 2, 2)
    return network
"""

TUPLE = FACTORY.replace("    return", "    network.forward = lambda image: (image, image)\n    return")
WIDER = FACTORY.replace("out_channels, 3", "out_channels + 2, 3")

WITH_PLAN = (
    FACTORY
    + """

def plan(facts):
    return {"width": 8 if facts.gpu else len(facts.thicknesses_mm)}


def memory(in_channels, out_channels, spacing_mm, patch_size, batch_size, value_bytes, width):
    voxels = batch_size * patch_size[0] * patch_size[1] * patch_size[2]
    return {"kept": width * value_bytes * voxels, "backward": 10.4, "tile": 1000}
"""
)

AS_CLASS = """

class network:
    make, plan, memory = staticmethod(make), staticmethod(plan), staticmethod(memory)
"""

SMALL = [((30, 26, 28), (3.0, 3.0, 3.0))]
BUDGET = Budget(memory_bytes=2 * 1024**3, gpu=False, precision="float32", reason="a test")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs a distribution that offers one network."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(name: str, source: str, target: str = "{}:make") -> None:
        module = f"fake_{name}"
        monkeypatch.delitem(sys.modules, module, raising=False)
        (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
        entries = f"[autospine.networks]\n{name} = {target.format(module)}\n"
        makers.install_distribution(tmp_path, module, entries, version="1.5")

    return add


def planned(*networks: str) -> Plan:
    return make_plan(
        facts.dataset(facts.plain_labels(2)),
        facts.fingerprint(SMALL, [9.0, 14.0]),
        BUDGET,
        Overrides(networks=networks),
    )


def test_a_network_of_another_distribution_is_planned_and_built(install):
    install("tiny", FACTORY)
    assert "tiny" in external_names()
    plan = planned("tiny")
    assert from_json(to_json(plan), Plan, "test") == plan
    configuration = plan.configurations[0]
    assert configuration.network.distribution == "fake_tiny 1.5"
    assert configuration.network.settings == {}
    assert configuration.network.divisor == (2, 2, 2)
    network = build_network(plan, configuration)
    assert network.width == 4
    assert network(torch.zeros(1, 1, 4, 4, 4)).shape == (1, 3, 4, 4, 4)


@pytest.mark.parametrize("target", ["{}", "{}:network"])
def test_it_may_plan_its_settings_and_state_its_memory(install, target):
    install("planning", WITH_PLAN + AS_CLASS, target)
    plan = planned("planning")
    configuration = plan.configurations[0]
    assert configuration.network.settings == {"width": 2}
    assert "width 2" in {decision.value for decision in plan.rationale}
    assert build_network(plan, configuration).width == 2
    spacing_mm, patch = configuration.spacing_mm, (8, 8, 8)
    arguments = {"precision": "float32", "in_channels": 1, "out_channels": 3, "spacing_mm": spacing_mm}
    training = training_memory(configuration.network, patch, batch_size=2, **arguments)
    assert training.activations == 2 * 4 * 2 * 8**3
    case = CaseMemory(image=7, scores=9)
    inference = inference_memory(configuration.network, patch, case=case, **arguments)
    assert inference.activations == 1000 + 8 * 3 * 8**3


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("import nothing_of_this_name", "{}:make", "nothing_of_this_name"),
        ("raise SystemExit('no licence')", "{}:make", "no licence"),
        ("", "{}:make", "AttributeError"),
        ("make = 3", "{}:make", "a callable, or an object with one called make.*found int"),
        ("def make(**_):\n    raise ValueError('too small')", "{}:make", "ValueError: too small"),
        ("def make(**_):\n    return 3", "{}:make", "torch module.*found int"),
        (FACTORY.replace("(2, 2, 2)", "(2, 0)"), "{}:make", "three positive numbers as the divisor"),
        (FACTORY + "\ndef plan(facts):\n    return [1]\n", "{}", r"from the `plan`.*found \[1\]"),
        (FACTORY + "\ndef plan(facts):\n    return facts.nothing\n", "{}", "AttributeError"),
        (
            WIDER,
            "{}:make",
            r"logits of shape \(1, 3,.*\(1, 5,",
        ),
        (TUPLE, "{}:make", r"logits of shape \(1, 3,.*found tuple"),
        (FACTORY.replace("(2, 2, 2)", "patch_size"), "{}:make", "same divisor for every patch"),
        (FACTORY + "\ndef memory(**_):\n    return {'kept': 1}\n", "{}", "bytes for backward, kept, tile"),
    ],
)
def test_what_is_wrong_with_it_is_said_with_its_name_and_distribution(install, source, target, message):
    install("broken", source, target)
    with pytest.raises(PlanError, match=message) as caught:
        planned("broken")
    assert "fake_broken 1.5" in str(caught.value)
    assert "choose another network" in str(caught.value)


def test_a_broken_one_disturbs_no_other_network(install):
    install("broken", "raise ImportError('broken')")
    install("tiny", FACTORY)
    assert {"broken", "tiny", "unet3d"} <= set(known_networks())
    assert planned("swin_unetr", "tiny").configurations
    with pytest.raises(PlanError, match=r"'broken'.*ImportError: broken"):
        planned("tiny", "broken")


def test_of_two_with_the_same_name_none_is_taken(install, tmp_path):
    install("tiny", FACTORY)
    install("tiny_two", FACTORY)
    entries = tmp_path / "fake_tiny_two-1.5.dist-info" / "entry_points.txt"
    entries.write_text("[autospine.networks]\ntiny = fake_tiny_two:make\n")
    with pytest.raises(PlanError, match=r"one installed distribution.*fake_tiny 1\.5.*fake_tiny_two 1\.5"):
        planned("tiny")
