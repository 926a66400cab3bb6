import copy
import pickle

import torch
from torch import Tensor, nn

from autospine.network.constants import PerVersion


class Doubled(nn.Module):
    """A parameter whose double is kept, with a count of how often it was made."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(3))
        self.known = PerVersion()
        self.made = 0

    def forward(self) -> Tensor:
        def double(table: Tensor) -> Tensor:
            self.made += 1
            return 2 * table

        return self.known(double, self.table)


def in_inference(module: Doubled) -> Tensor:
    with torch.inference_mode():
        return module().clone()


def test_it_is_made_once_in_inference():
    module = Doubled()
    assert torch.equal(in_inference(module), in_inference(module))
    assert module.made == 1


def test_it_is_made_anew_when_the_parameter_has_changed():
    module = Doubled()
    in_inference(module)
    module.load_state_dict({"table": torch.full((3,), 5.0)})
    assert in_inference(module).tolist() == [10.0] * 3
    module.load_state_dict({"table": torch.full((3,), 7.0)}, assign=True)
    assert in_inference(module).tolist() == [14.0] * 3
    assert in_inference(copy.deepcopy(module)).tolist() == [14.0] * 3
    assert in_inference(pickle.loads(pickle.dumps(module))).tolist() == [14.0] * 3


def test_a_fused_optimiser_does_not_leave_it_stale():
    """It changes parameters without raising their version."""
    module = Doubled()
    optimiser = torch.optim.SGD(module.parameters(), lr=1.0, fused=True)
    in_inference(module)
    module().sum().backward()
    optimiser.step()
    assert in_inference(module).tolist() == [-2.0] * 3


def test_another_parameter_at_the_same_address_is_another():
    module = Doubled()
    for value in range(5):
        swapped = {"table": torch.full((3,), float(value))}
        with torch.inference_mode():
            result = torch.func.functional_call(module, swapped).clone()
        assert result.tolist() == [2.0 * value] * 3
        del swapped
    with torch.no_grad():
        for value in range(5):
            result = torch.func.functional_call(module, {"table": torch.full((3,), float(value))})
            assert result.tolist() == [2.0 * value] * 3


def test_parameters_made_in_inference_mode_work():
    with torch.inference_mode():
        module = Doubled()
        assert module().tolist() == [2.0] * 3
