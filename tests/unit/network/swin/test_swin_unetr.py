import copy
import subprocess
import sys

import pytest
import torch
from jaxtyping import config
from torch import Tensor

from autospine.core.errors import ImageError, PlanError
from autospine.network import AdaptiveSwinUNETR, AttentionSettings, FusionSettings
from autospine.network.swin.stages import PatchMerging
from autospine.network.swin.windows import MERGING_ORDER

SMALL = {"feature_size": 8, "num_heads": (1, 2, 4, 8), "window_size": 3}
ANISOTROPIC = ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))


def plain(**changes: object) -> AdaptiveSwinUNETR:
    torch.manual_seed(0)
    return AdaptiveSwinUNETR(1, 3, **{**SMALL, **changes})  # type: ignore[arg-type]


def adaptive(**changes: object) -> AdaptiveSwinUNETR:
    fusion = FusionSettings(kernels=((2, 2, 2), (4, 4, 4)))
    return plain(**{"fusion": fusion, "attention": AttentionSettings(), **changes})


def image(size: tuple[int, int, int] = (64, 32, 32), batch: int = 1) -> Tensor:
    return torch.randn(batch, 1, *size, generator=torch.Generator().manual_seed(1))


def test_adaptive_network_starts_as_the_plain_one() -> None:
    net, control = adaptive(), plain()
    missing = control.load_state_dict(net.state_dict(), strict=False).missing_keys
    assert not missing
    with torch.no_grad():
        torch.testing.assert_close(net(image()), control(image()), atol=1e-5, rtol=1e-5)


def test_the_convolutions_see_the_gradient_as_a_channel() -> None:
    seen = adaptive(attention=AttentionSettings(gradient_channel=True))
    assert seen.encoders[0].conv1.weight.shape[-1] == seen.embedding.weight.shape[1] == 2
    with torch.no_grad():
        shown = seen(image())
        seen.encoders[0].conv1.weight[..., 1] = 0
        assert not torch.allclose(seen(image()), shown)
        # Without the channel's weights it is the network that does not see it.
        seen.encoders[0].conv3.weight[..., 1] = 0
        seen.embedding.weight[:, 1] = 0
        control = adaptive()
        weights = seen.state_dict()
        for name in ("encoders.0.conv1.weight", "encoders.0.conv3.weight"):
            weights[name] = weights[name][..., :1]
        for name in ("embedding.weight", "embedding.scales.0"):
            weights[name] = weights[name][:, :1]
        control.load_state_dict(weights)
        torch.testing.assert_close(seen(image()), control(image()), atol=1e-5, rtol=1e-5)
    with pytest.raises(PlanError, match=r"expected an image \(B, 1,"):
        seen(torch.zeros(1, 2, 32, 32, 32))


def test_every_parameter_gets_a_finite_gradient() -> None:
    net = adaptive()
    net(image((64, 64, 32))).square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    assert not [name for name, gradient in gradients.items() if gradient is None]
    assert all(torch.isfinite(g).all() for g in gradients.values() if g is not None)
    assert all(
        gradients[f"stages.{i}.blocks.{j}.attention.saliency.gamma"].abs().max() > 0  # type: ignore[union-attr]
        for i in range(4)
        for j in range(2)
    )


@pytest.mark.parametrize("use_v2", [True, False])
@pytest.mark.parametrize("strides, size", [(((2, 2, 2),) * 5, (32, 64, 32)), (ANISOTROPIC, (16, 64, 32))])
def test_logits_have_the_size_of_the_image(
    use_v2: bool, strides: tuple[tuple[int, int, int], ...], size: tuple[int, int, int]
) -> None:
    net = plain(use_v2=use_v2, strides=strides, window_size=(2, 3, 3))
    with torch.no_grad():
        assert net(image(size, batch=2)).shape == (2, 3, *size)


def test_samples_of_a_batch_do_not_meet() -> None:
    net = adaptive()
    batch = image(batch=2)
    with torch.no_grad():
        single = torch.cat([net(sample[None]) for sample in batch])
        torch.testing.assert_close(net(batch), single, atol=1e-4, rtol=1e-4)


def test_a_batch_may_be_computed_sample_by_sample_at_full_resolution(monkeypatch) -> None:
    network, batch = plain(window_size=2).double(), image((64, 32, 32), batch=2).double()
    expected = network(batch)
    wanted = torch.autograd.grad(expected.square().sum(), list(network.parameters()))
    monkeypatch.setattr("autospine.network.swin.swin_unetr.computes_by_sample", lambda _: True)
    found = network(batch)
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad(found.square().sum(), list(network.parameters()))
    torch.testing.assert_close(gradients, wanted)


def test_bottleneck_of_one_voxel_trains() -> None:
    net = plain().train()
    out = net(image((32, 32, 32)))
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("route", ["compute_dtype", "autocast"])
def test_bfloat16_is_near_float32(route: str) -> None:
    net = adaptive()
    with torch.no_grad():
        exact = net(image())
        if route == "compute_dtype":
            net.compute_dtype = torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16, enabled=route == "autocast"):
            half = net(image())
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).abs().mean() < 0.05 * exact.std()


def test_bfloat16_gradients_are_float32_and_near() -> None:
    gradients = []
    for dtype in (None, torch.bfloat16):
        net = adaptive()
        net.compute_dtype = dtype
        net(image()).float().square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.decoders[0].parameters()]))  # type: ignore[union-attr]
    assert gradients[1].dtype == torch.float32
    assert torch.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.99


def test_checkpointing_changes_nothing_but_memory() -> None:
    gradients = []
    for checkpointing in (False, True):
        net = adaptive(checkpointing=checkpointing)
        net(image()).square().mean().backward()
        gradients.append([p.grad for p in net.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_inference_first_does_not_spoil_training() -> None:
    net = plain(window_size=(3, 2, 5))
    with torch.inference_mode():
        net(image())
    net(image()).sum().backward()


def test_builds_without_memory() -> None:
    with torch.device("meta"):
        net = adaptive(window_size=7)
        assert net(torch.empty(1, 1, 64, 64, 64)).shape == (1, 3, 64, 64, 64)


def test_readouts_for_monitors() -> None:
    switches = (True, False, True, False)
    net = adaptive(attention=AttentionSettings(saliency=switches))
    assert net.fusion_weights().tolist() == [1.0, 0.0]
    gammas = net.saliency_gammas()
    assert [len(stage) for stage in gammas] == [2, 0, 2, 0]
    assert [g.tolist() for g in gammas[2]] == [[0.0] * 4] * 2
    maps = net.attention_maps(image((64, 32, 64)))
    assert [[m.saliency is not None for m in stage] for stage in maps] == [
        [switch] * 2 for switch in (True, False, True, False)
    ]
    assert maps[2][1].saliency is not None and maps[2][1].saliency.shape == (1, 4, 8, 4, 8)
    assert maps[1][0].received.shape == (1, 2, 16, 8, 16)


def test_attention_is_received_as_often_as_given() -> None:
    """Windows of 4 tile the grids of the first three stages, so that no padding receives anything."""
    net = adaptive(window_size=4)
    with torch.no_grad():
        for parameter in net.stages.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    for stage in net.attention_maps(image((64, 64, 64)))[:3]:
        for maps in stage:
            torch.testing.assert_close(
                maps.received.mean(dim=(2, 3, 4)), torch.ones(1, maps.received.shape[1])
            )
            assert maps.received.std() > 0.01


def test_without_attention_blocks_are_perceptrons() -> None:
    net = plain(attention="identity")
    names = [name for name, _ in net.named_parameters()]
    assert not [name for name in names if "attention" in name or "norm1" in name]
    net(image((64, 64, 32))).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())
    assert net.attention_maps(image()) == [[]] * 4


def test_sixteen_slices_need_no_padding() -> None:
    """A sagittal MR of thick slices: L is halved once, S and P five times."""
    strides = ((2, 2, 1), (2, 2, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2))
    net = plain(strides=strides, window_size=((4, 4, 4), (4, 4, 4), (4, 4, 4), (2, 2, 4)))
    assert net.divisor == (32, 32, 2)
    with torch.no_grad():
        assert net(image((64, 64, 16))).shape == (1, 3, 64, 64, 16)


GRAPHS = """
import torch
from autospine.network import AdaptiveSwinUNETR, AttentionSettings, FusionSettings

# In float64: a norm over the two voxels of the coarsest map enlarges rounding errors of float32 at will.
torch.set_default_dtype(torch.float64)

def make(**mechanisms):
    return AdaptiveSwinUNETR(
        1, 3, feature_size=8, num_heads=(1, 2, 4, 8), depths=(2, 1, 1, 1), window_size=3, **mechanisms
    )

def compiled(network, backend="aot_eager"):
    torch._dynamo.reset()
    return torch.compile(network, fullgraph=True, backend=backend)

def trained(call, network):
    parameters = [p for p in network.parameters() if p.requires_grad]
    logits = call(image)
    gradients = torch.autograd.grad(logits.square().mean(), parameters)
    return logits, torch.cat([g.flatten() for g in gradients])

image = torch.randn(1, 1, 64, 32, 32)
fusion = FusionSettings(kernels=((2, 2, 2), (4, 4, 4)), placement="both")
adaptive = make(fusion=fusion, attention=AttentionSettings())
with torch.no_grad():
    torch.testing.assert_close(compiled(adaptive)(image), adaptive(image))
# The adaptive network's graph has every operation of the plain one, so that this need not be lowered too.
for network, backend in ((make(), "eager"), (adaptive, "aot_eager")):
    calls = (compiled(network, backend), network)
    (logits, found), (expected, wanted) = (trained(call, network) for call in calls)
    torch.testing.assert_close(logits, expected)
    assert (found - wanted).norm() <= 1e-4 * wanted.norm()
"""


def test_forward_pass_is_one_graph() -> None:
    """In a process of its own, because the compiler does not see through the checks of types in tests."""
    result = subprocess.run([sys.executable, "-c", GRAPHS], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_saliency_maps_lie_on_the_image() -> None:
    """With gamma on the gradient alone, every block's map is the gradient pyramid itself, shift or not."""
    net = adaptive()
    with torch.no_grad():
        for stage in net.stages:
            for block in stage.blocks:
                block.attention.saliency.weight.zero_()
                block.attention.saliency.gamma.fill_(1e-3)
    for first, second in net.attention_maps(image()):
        assert first.saliency is not None and second.saliency is not None
        assert torch.equal(first.saliency, second.saliency)
    bright = torch.zeros(1, 1, 64, 32, 32)
    bright[:, :, 40:] = 1.0
    saliency = net.attention_maps(bright)[0][1].saliency
    assert saliency is not None
    rows = saliency[0, 0].mean((1, 2))
    assert rows.argmax().item() in (19, 20)


def test_copies_are_independent() -> None:
    net = adaptive()
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin.head.bias.add_(1.0)
        torch.testing.assert_close(twin(image()), net(image()) + 1.0)


def test_merging_stacks_tokens_in_order() -> None:
    merging = PatchMerging(1, (2, 2, 2))
    x = torch.arange(8.0).view(1, 2, 2, 2, 1)
    expected = torch.stack([x[0, i, j, k, 0] for i, j, k in MERGING_ORDER])
    reduced = torch.nn.functional.layer_norm(expected, (8,)) @ merging.reduction.weight.T
    torch.testing.assert_close(merging(x).flatten(), reduced)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"feature_size": 10, "num_heads": (3, 6, 12, 24)}, "heads of stage 0"),
        ({"depths": (2, 2, 2)}, "positive depths"),
        ({"window_size": 0}, "window size"),
        ({"window_size": ((2, 2, 2),) * 3}, "window size"),
        ({"strides": ((2, 2, 3),) * 5}, "stride triples"),
        ({"merge_order": "legacy", "strides": ANISOTROPIC}, "mergings of stride"),
    ],
)
def test_impossible_architectures_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plain(**changes)


def test_unknown_kinds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # what a user has, who is not a type checker
    with pytest.raises(PlanError, match="attention settings, 'plain' or 'identity'"):
        plain(attention="none")
    with pytest.raises(PlanError, match="merge order 'fixed' or 'legacy'"):
        plain(merge_order="v2")
    for field in ("weighting", "placement"):
        with pytest.raises(PlanError, match=f"fusion {field} of .*, found 'nowhere'"):
            FusionSettings(kernels=((2, 2, 2),), **{field: "nowhere"})


def test_unfit_images_are_refused() -> None:
    with pytest.raises(PlanError, match=r"multiples of \(32, 32, 32\)"):
        plain()(image((64, 48, 32)))
    with pytest.raises(PlanError, match=r"image \(B, 1, S, P, L\)"):
        plain()(torch.randn(1, 2, 32, 32, 32))
    with pytest.raises(PlanError, match=r"window of stage 3 to fit its token grid \(4, 2, 2\)"):
        plain(window_size=((4, 4, 4),) * 4)(image())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    spoilt = image()
    spoilt[0, 0, 3, 4, 5] = value
    with pytest.raises(ImageError, match="finite intensities"):
        plain()(spoilt)
