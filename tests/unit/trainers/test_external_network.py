"""Training of a network of another distribution: its faults bear its name, not the loss's or ours."""

import sys
from types import ModuleType

import makers
import pytest
import torch
from torch import nn
from unit.trainers.test_learner import CPU, batch

from autospine.core.errors import AutospineError
from autospine.network.external_plan import ExternalPlan
from trainers.learner import Learner


class Faulty(nn.Module):
    def __init__(self, in_channels, out_channels, spacing_mm, patch_size, fault):
        super().__init__()
        self.fault = fault
        self.layer = nn.Conv3d(in_channels, out_channels + 2 * (fault == "channels"), 1)

    def forward(self, image):
        logits = self.layer(image)
        if self.fault == "raising":
            raise IndexError("beyond the end")
        if self.fault == "shape":
            return logits[:, :, ::2]
        return (logits, logits) if self.fault == "tuple" else logits


@pytest.fixture
def learner(tmp_path, monkeypatch):
    """A learner of the network with a fault."""
    module = ModuleType("their_network")
    module.Faulty = Faulty
    monkeypatch.setitem(sys.modules, "their_network", module)
    makers.install_distribution(tmp_path, "theirs", "[autospine.networks]\nfaulty = their_network:Faulty\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(fault: str) -> Learner:
        network = ExternalPlan(
            name="external",
            entry_point="faulty",
            distribution="theirs 1.0",
            settings={"fault": fault},
            divisor=(1, 1, 1),
        )
        plan = makers.plan(makers.configuration(network=network))
        return Learner(plan, plan.configurations[0], seed=0, device=CPU)

    return make


def test_a_sound_one_learns(learner):
    assert torch.isfinite(torch.tensor(learner("none").step(*batch(), 0.02).loss))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("channels", r"logits of shape \(1, 3, 16, 16, 16\), found a tensor of shape \(1, 5, 16, 16, 16\)"),
        ("shape", r"logits of shape \(1, 3, 16, 16, 16\), found a tensor of shape \(1, 3, 8, 16, 16\)"),
        ("tuple", r"logits of shape \(1, 3, 16, 16, 16\), found tuple"),
        ("raising", "has failed: IndexError: beyond the end"),
    ],
)
def test_a_fault_bears_the_name_of_the_network(learner, fault, message):
    with pytest.raises(AutospineError, match=rf"network 'faulty'.*theirs 1\.0.*{message}.*another network"):
        learner(fault).step(*batch(), 0.02)
