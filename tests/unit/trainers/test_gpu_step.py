"""The training step as a GPU would see it, counted on the meta device."""

import makers
import pytest
import torch
from gpu_count import META, GpuCount, count_step, count_tile, counted, swin_learner
from torch import nn

from trainers.learner import JOINING, Learner


@pytest.fixture(scope="module")
def step() -> GpuCount:
    """A step of the planned network: feature size 48, 128^3, batch 2, five classes, bfloat16."""
    return count_step(swin_learner())


def test_the_counter_knows_launches_views_and_synchronisations():
    x = torch.zeros(4, 6, device=META)
    with counted() as spy:
        y = x.t().reshape(6, 4) + 1  # two views and a launch
        y.add_(x.sum(0)[:, None])
        assert bool((y > 0).all())
        y.cpu()
        torch.ones(3).to(META)
        torch.ones(3).to(META, non_blocking=True)
    total = spy.count.total()
    assert spy.count.of("add").launches == 1
    assert spy.count.of("add_").bytes == 4 * (2 * 24 + 6)
    assert spy.count.of("sum").bytes == 4 * (24 + 6)
    assert total.host_to_device == 2
    assert total.syncs == 3


def test_the_counter_counts_a_multi_tensor_kernel_as_often_as_it_is_launched():
    tensors = [torch.zeros(65536 * 200, device=META), *(torch.zeros(3, device=META) for _ in range(120))]
    with counted() as spy:
        torch._foreach_mul_(tensors, 2.0)
    # 200 blocks and 109 tensors fill the first launch; the second one has the other eleven tensors.
    assert spy.count.of("_foreach_mul_").launches == 2


def test_the_counter_keeps_the_channels_of_convolutions_last():
    layer = nn.Conv3d(4, 8, 3, padding=1, device=META).to(memory_format=torch.channels_last_3d)
    x = torch.zeros(1, 4, 6, 6, 6, device=META).to(memory_format=torch.channels_last_3d).requires_grad_()
    with counted() as spy:
        y = layer(x)
        assert y.is_contiguous(memory_format=torch.channels_last_3d)
        y.sum().backward()
    assert x.grad is not None
    assert x.grad.is_contiguous(memory_format=torch.channels_last_3d)
    assert spy.count.of("convolution").operations == 2 * 27 * 4 * 8 * 6**3
    assert spy.count.of("clone").launches == 0


def test_no_part_of_the_step_is_missed(step):
    for phase in ("forward", "loss", "backward", "optimizer"):
        assert step.total(phase).launches > 10
    # 39 of the network, of which the six at full resolution are called for each sample.
    assert step.of("convolution").launches == step.of("convolution_backward").launches == 45
    assert step.total().operations == pytest.approx(8.9e12, rel=0.05)


def test_a_tile_is_a_third_of_a_step_and_reads_nothing_back():
    learner = swin_learner(size=64)
    tile, step = count_tile(learner.network, size=64).total(), count_step(learner, size=64, batch=1).total()
    assert tile.syncs == 0
    assert tile.operations == pytest.approx(step.operations / 3, rel=0.1)


def test_the_step_stays_as_short_as_it_is(step):
    """With some room, as what else is counted may change a little; lower these figures with the step."""
    total = step.total()
    assert total.launches <= 1650
    assert total.bytes <= 95e9
    assert 1e3 * total.seconds <= 30
    assert step.peak <= 8.5 * 2**30


def test_the_step_reads_its_numbers_once_and_updates_in_a_few_calls(step):
    assert step.total().syncs == 1
    assert step.optimizer_calls <= 8


def test_a_step_that_the_monitors_sample_reads_its_counts_too():
    plain, sampled = (
        count_step(swin_learner(size=32, width=12), size=32, sample=sample).total()
        for sample in (False, True)
    )
    assert plain.syncs == 1
    assert 1 < sampled.syncs <= 12
    assert sampled.launches > plain.launches


def test_the_gradient_of_the_position_bias_is_made_in_parts(step):
    assert step.bias_gradient <= 2**29


def test_network_and_loss_are_compiled_for_a_gpu(monkeypatch):
    compiled = {}

    def compile_later(function, *, options, **_):
        compiled[getattr(function, "__name__", "network")] = options
        return function

    monkeypatch.setattr(torch, "compile", compile_later)
    configuration = makers.configuration()
    with META, counted():
        Learner(makers.plan(configuration), configuration, seed=0, device=META, compiled=True)
    assert list(compiled) == ["network", "joined_sums", "joined_gradient"]
    assert all(options == JOINING for options in compiled.values())
