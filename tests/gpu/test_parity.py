"""A GPU computes what the CPU does: parts of the network, the loss, steps of training, and predictions.

Run by `make test-gpu`. Everything is small, so that all of it takes less than two minutes.
"""

from collections.abc import Callable, Iterator, Mapping

import makers
import numpy as np
import pytest
import torch
from torch import Tensor

from autospine.cli.app import main
from autospine.core.labels import IGNORE_INDEX, parse_labels
from autospine.io.images import read_labels
from autospine.network.normalisation import instance_norm, norm_act
from autospine.network.resenc_unet import ResEncUNet
from autospine.network.swin.attention_core import attend
from autospine.network.swin.windows import window_layout
from autospine.network.unet3d import UNet3D
from autospine.network.unet_plans import UNetPlan
from autospine.plan import build_network
from autospine.system.allocation import is_out_of_memory
from trainers.learner import Learner
from trainers.losses.dice_ce import DiceCE
from trainers.randomness import deterministic

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")
RATE = 0.02
HALVES = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.02}
"""Largest relative difference of losses from those of float32 on the CPU, by number format."""

PLAIN = parse_labels({"background": 0, "bone": 3, "canal": 7, "ignore": 9})
NESTED = parse_labels({"background": 0, "spine": [3, 7], "canal": [7], "ignore": 9}, [3, 7])


def apart(found: Tensor, expected: Tensor) -> float:
    """Difference relative to the size of what is expected."""
    found, expected = found.detach().float().cpu(), expected.detach().float().cpu()
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))


def with_gradients(function: Callable[..., Tensor], device: torch.device, *inputs: Tensor) -> list[Tensor]:
    """The result on a device, and the gradient of each input for a fixed gradient of the result."""
    here = [x.detach().clone().to(device).requires_grad_() for x in inputs]
    result = function(*here)
    grad = torch.randn(result.shape, generator=torch.Generator().manual_seed(7)).to(result)
    return [result, *torch.autograd.grad(result, here, grad)]


def assert_equal_on(
    gpu: torch.device, function: Callable[..., Tensor], *inputs: Tensor, within: float
) -> None:
    expected = with_gradients(function, CPU, *inputs)
    for position, (a, b) in enumerate(zip(with_gradients(function, gpu, *inputs), expected, strict=True)):
        assert apart(a, b) < within, f"{'result' if position == 0 else f'gradient {position}'}"


@pytest.mark.parametrize("shape", [(1, 6, 5, 7, 12), (2, 8, 8, 8, 48), (3, 1, 1, 1, 24), (2, 16, 16, 16, 24)])
@pytest.mark.parametrize("normalise_residual", [False, True])
def test_norm_activation_and_residual(gpu, shape, normalise_residual):
    torch.manual_seed(0)
    x, residual = torch.randn(shape) * 3 + 1, torch.randn(shape)

    def both(a: Tensor, b: Tensor) -> Tensor:
        return norm_act(a, b, normalise_residual=normalise_residual)

    assert_equal_on(gpu, both, x, residual, within=1e-4)
    assert_equal_on(gpu, norm_act, x, within=1e-4)


@pytest.mark.parametrize("shape", [(2, 32, 12, 10, 8), (1, 5, 1, 1, 1)])
def test_norm_of_the_compared_networks(gpu, shape):
    torch.manual_seed(0)
    channels = shape[1]
    assert_equal_on(
        gpu, instance_norm, torch.randn(shape), torch.rand(channels), torch.rand(channels), within=1e-4
    )


@pytest.mark.parametrize("window", [(2, 2, 2), (5, 5, 7), (4, 5, 7), (7, 7, 7), (8, 8, 8)])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("salient", [False, True])
def test_attention_at_numbers_of_tokens_that_are_planned(gpu, window, shifted, salient):
    """With and without gradients, which may choose another kernel: 8, 175, 140, 343 and 512 tokens."""
    torch.manual_seed(0)
    heads, d = 3, 16
    grid = (2 * window[0], window[1], window[2] + 1)
    here, there = (window_layout(grid, window, shifted, device) for device in (CPU, gpu))
    windows, n = sum(here.runs), here.tokens_per_window
    qkv = torch.randn(1, windows, n, 3, heads, d)
    factor, saliency = torch.rand(1, windows, n, heads), torch.randn(1, windows, n, heads)
    bias = torch.randn(heads, n, n)

    def product(qkv: Tensor, factor: Tensor, saliency: Tensor, bias: Tensor) -> Tensor:
        layout = here if qkv.device == CPU else there
        attended = attend(qkv, factor, saliency if salient else None, bias, layout)
        return attended if salient else attended + 0 * saliency[..., None]

    assert_equal_on(gpu, product, qkv, factor, saliency, bias, within=1e-3)
    expected = product(qkv, factor, saliency, bias)
    with torch.inference_mode():
        for dtype, within in ((torch.float32, 1e-3), (torch.bfloat16, 0.03), (torch.float16, 0.01)):
            found = product(*(x.to(gpu, dtype) for x in (qkv, factor, saliency, bias)))
            assert apart(found, expected) < within, dtype


@pytest.mark.parametrize("labels", [PLAIN, NESTED])
@pytest.mark.parametrize("ignored", [False, True])
def test_loss_and_its_gradient(gpu, labels, ignored):
    torch.manual_seed(0)
    stored = torch.randint(0, 3, (2, 8, 9, 10), dtype=torch.uint8)
    if ignored:
        stored[:, :3] = IGNORE_INDEX
    logits = torch.randn(2, labels.n_channels, 8, 9, 10) * 3

    def loss(logits: Tensor) -> Tensor:
        return DiceCE(labels, 0.4).to(logits.device)(logits, stored.to(logits.device)).total

    assert_equal_on(gpu, loss, logits, within=1e-4)


@pytest.mark.parametrize("attention", [None, True])
def test_network_and_its_gradients(gpu, attention):
    plan = makers.plan()
    expected: dict[str, Tensor] = {}
    image = torch.randn(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    for device in (CPU, gpu):
        torch.manual_seed(0)
        network = build_network(plan, plan.configurations[0]).to(device).train(bool(attention))
        logits = network(image.to(device))
        logits.square().mean().backward()
        found = {"logits": logits} | {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
        expected = expected or found
        for name, tensor in found.items():
            assert apart(tensor, expected[name]) < 5e-3 or expected[name].norm() < 1e-6, name


U_NET = UNetPlan(
    name="unet3d",
    features=(8, 16, 24),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 1)),
    kernels=((3, 3, 3), (3, 3, 1), (3, 3, 3)),
    checkpointing=False,
)


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("blocks", [None, (1, 2, 2)], ids=["unet3d", "resenc_unet"])
def test_u_nets_whose_channels_lie_last_in_16_bits(gpu, precision, blocks):
    image = torch.randn(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    found: dict[torch.device, list[Tensor]] = {}
    for device in (CPU, gpu):
        torch.manual_seed(0)
        network = UNet3D(1, 3, U_NET) if blocks is None else ResEncUNet(1, 3, U_NET, blocks=blocks)
        network.to(device).compute_dtype = None if device == CPU else getattr(torch, precision)
        logits = network(image.to(device)).float()
        logits.square().mean().backward()
        found[device] = [logits, *(p.grad for p in network.parameters())]
    assert apart(found[gpu][0], found[CPU][0]) < HALVES[precision]
    gradients = [torch.cat([g.float().cpu().flatten() for g in found[device][1:]]) for device in (gpu, CPU)]
    assert apart(*gradients) < 3 * HALVES[precision]


def learner(device: torch.device, *, compiled: bool = False, **training: object) -> Learner:
    plan = makers.plan(makers.configuration(training={"batch_size": 2, **training}))
    return Learner(plan, plan.configurations[0], seed=0, device=device, compiled=compiled)


def batches(n: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images that show their labels, with noise."""
    labels = torch.from_numpy(np.stack([makers.column((16, 16, 24))[:, :, at : at + 16] for at in (2, 4)]))
    for seed in range(n):
        noise = torch.randn(labels.shape, generator=torch.Generator().manual_seed(seed))
        yield (labels.float() + 0.1 * noise)[:, None], labels


def losses(made: Learner, n: int = 6) -> list[float]:
    return [made.step(images, labels, RATE).loss for images, labels in batches(n)]


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_steps_of_training(gpu, precision, checkpointing):
    """Six steps give the losses of the CPU in float32, in every number format and with recomputed blocks."""
    expected = losses(learner(CPU))
    made = learner(gpu, precision=precision)
    made.network.checkpointing = checkpointing
    found = losses(made)
    np.testing.assert_allclose(found, expected, rtol=HALVES[precision])
    assert found[-1] < found[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own modules
def test_a_compiled_network_learns_alike(gpu, caplog):
    np.testing.assert_allclose(losses(learner(gpu, compiled=True)), losses(learner(gpu)), rtol=5e-3)
    if gpu.type == "cuda":
        # Training goes on uncompiled where compiling fails, which would compare nothing.
        assert "could not be compiled" not in caplog.text


def kept(made: Learner) -> Mapping[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in made.tensors().items()}


@pytest.mark.parametrize("precision", HALVES)
def test_a_deterministic_training_gives_the_same_weights_twice_and_after_a_resume(gpu, precision):
    with deterministic():
        once, twice = learner(gpu, precision=precision), learner(gpu, precision=precision)
        losses(once, 4), losses(twice, 2)
        resumed = learner(gpu, precision=precision)
        resumed.restore({name: tensor.cpu() for name, tensor in kept(twice).items()})
        for images, labels in list(batches(4))[2:]:
            resumed.step(images, labels, RATE)
    expected = once.network.state_dict()
    for name, tensor in resumed.network.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0, msg=name)


def test_a_gradient_that_overflows_is_left_out(gpu):
    made = learner(gpu, precision="float16")
    images, labels = next(batches(1))
    before = {name: tensor.clone() for name, tensor in made.network.state_dict().items()}
    assert not made.step(images * 1e38, labels, RATE).finite
    for name, tensor in made.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert made.step(images, labels, RATE).finite


def test_too_little_memory_is_told_as_such(gpu):
    if gpu.type != "cuda":
        pytest.skip("only a GPU refuses memory")
    free, total = torch.cuda.mem_get_info(gpu)
    torch.cuda.set_per_process_memory_fraction(256 * 2**20 / total, gpu)
    try:
        with pytest.raises(Exception) as raised:
            torch.empty(free, dtype=torch.uint8, device=gpu)
        assert is_out_of_memory(raised.value)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, gpu)


def test_the_commands_from_images_to_label_maps(gpu, tmp_path, monkeypatch):
    """Phantoms are planned for, trained on for a few steps and predicted, all on the GPU."""
    monkeypatch.chdir(tmp_path)
    device = ("--device", gpu.type)
    made = ("phantom", "-o", "raw/Dataset005_Phantoms", "--cases", "5", "--test-cases", "1")
    assert main([*made, "--labels", "structures"]) == 0
    assert main(["plan-and-preprocess", "-d", "5", *device, "--memory", "4GB"]) == 0
    assert main(["train", "0", "--fold", "0", "--max-minutes", "0.3", *device]) == 0
    images = "raw/Dataset005_Phantoms/imagesTs"
    assert main(["predict", "-i", images, "-o", "here", *device]) == 0
    assert main(["predict", "-i", images, "-o", "there", "--device", "cpu"]) == 0
    (here,), (there,) = (sorted((tmp_path / name).glob("*.nii.gz")) for name in ("here", "there"))
    assert (read_labels(here).array == read_labels(there).array).mean() > 0.99
