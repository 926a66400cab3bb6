import pytest
import torch
from torch import nn

from autospine.storage.tensors import flatten_optimizer, restore_optimizer
from trainers.optimizer import JoinedAdamW

RATES = (0.02, 0.002, 0.007)
DECAYS = (0.1, 0.0, 0.1)
BETAS = (0.9, 0.98)


def groups(seed: int = 0) -> list[dict]:
    """Groups of one tensor each."""
    torch.manual_seed(seed)
    shapes = ((4, 3), (5,), (2, 2, 2))
    return [
        {"params": [nn.Parameter(torch.randn(shape, dtype=torch.float64))], "lr": rate, "weight_decay": decay}
        for shape, rate, decay in zip(shapes, RATES, DECAYS, strict=True)
    ]


def give_gradients(optimizer: torch.optim.Optimizer, seed: int, factor: float = 1.0) -> None:
    torch.manual_seed(seed)
    for group in optimizer.param_groups:
        (parameter,) = group["params"]
        parameter.grad = factor * torch.randn_like(parameter)


def parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]


def test_it_steps_as_torchs_with_a_group_for_each_tensor():
    expected, joined = torch.optim.AdamW(groups(), betas=BETAS), JoinedAdamW(groups(), betas=BETAS)
    for seed in range(4):
        for optimizer in (expected, joined):
            give_gradients(optimizer, seed)
            optimizer.step()
    torch.testing.assert_close(parameters(joined), parameters(expected), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(flatten_optimizer(joined), flatten_optimizer(expected), rtol=1e-12, atol=0)


def test_it_goes_on_from_the_state_of_torchs():
    expected, joined = torch.optim.AdamW(groups(), betas=BETAS), JoinedAdamW(groups(1), betas=BETAS)
    give_gradients(expected, 0)
    expected.step()
    with torch.no_grad():
        for group, other in zip(joined.param_groups, expected.param_groups, strict=True):
            group["params"][0].copy_(other["params"][0])
    restore_optimizer(joined, {n: t.clone() for n, t in flatten_optimizer(expected).items()})
    for optimizer in (expected, joined):
        give_gradients(optimizer, 1)
        optimizer.step()
    torch.testing.assert_close(parameters(joined), parameters(expected), rtol=1e-12, atol=1e-14)


def test_a_step_is_left_out_where_the_device_says_so():
    joined = JoinedAdamW(groups(), betas=BETAS)
    give_gradients(joined, 0)
    joined.step()
    before, state = parameters(joined), {n: t.clone() for n, t in flatten_optimizer(joined).items()}
    joined.found_inf = torch.ones(())
    give_gradients(joined, 1, float("nan"))
    joined.step()
    torch.testing.assert_close(parameters(joined), before, rtol=0, atol=0)
    torch.testing.assert_close(flatten_optimizer(joined), state, rtol=0, atol=0)


def test_gradients_are_divided_by_the_scale():
    plain, scaled = JoinedAdamW(groups(), betas=BETAS), JoinedAdamW(groups(), betas=BETAS)
    scaled.grad_scale = torch.tensor(3.0)
    for optimizer, factor in ((plain, 1.0), (scaled, 3.0)):
        give_gradients(optimizer, 0, factor)
        optimizer.step()
    torch.testing.assert_close(parameters(scaled), parameters(plain))


def test_without_a_rate_nothing_moves():
    joined = JoinedAdamW(groups(), betas=BETAS)
    for group in joined.param_groups:
        group["lr"] = 0.0
    before = parameters(joined)
    give_gradients(joined, 0)
    joined.step()
    torch.testing.assert_close(parameters(joined), before, rtol=0, atol=0)


def test_a_closure_is_refused():
    with pytest.raises(ValueError, match="closure"):
        JoinedAdamW(groups(), betas=BETAS).step(lambda: 0.0)


def test_a_step_without_memory_for_its_state_changes_nothing_and_can_be_repeated(monkeypatch):
    expected, joined = torch.optim.AdamW(groups(), betas=BETAS), JoinedAdamW(groups(), betas=BETAS)
    for optimizer in (expected, joined):
        give_gradients(optimizer, 0)
    before, make, made = parameters(joined), torch.zeros_like, []

    def full_at_last(*given, **settings):
        if len(made) == 5:
            raise torch.OutOfMemoryError
        made.append(make(*given, **settings))
        return made[-1]

    with monkeypatch.context() as patched, pytest.raises(torch.OutOfMemoryError):
        patched.setattr(torch, "zeros_like", full_at_last)
        joined.step()
    torch.testing.assert_close(parameters(joined), before, rtol=0, atol=0)
    expected.step()
    joined.step()
    torch.testing.assert_close(parameters(joined), parameters(expected), rtol=1e-12, atol=1e-14)
