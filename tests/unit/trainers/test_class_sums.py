import pytest
import torch
from plain_loss import plain_dice_ce

from autospine.core.labels import IGNORE_INDEX, parse_labels
from autospine.memory import loss_memory
from trainers.label_targets import LabelTargets
from trainers.losses.dice_ce import DiceCE

SPACES = {
    "classes": parse_labels({"background": 0, "bone": 4, "canal": 9, "disc": 2}),
    "one class": parse_labels({"bone": 1}),
    "regions that overlap": parse_labels({"whole": [1, 2], "core": [2]}, regions_class_order=(1, 2)),
    "one region": parse_labels({"bone": [1]}, regions_class_order=(1,)),
}
SHAPE = (2, 6, 3, 5)
LAYOUTS = {
    "channels first": torch.contiguous_format,
    "channels last": torch.channels_last_3d,
}


@pytest.fixture(autouse=True)
def several_pieces(monkeypatch):
    """Pieces of two slices, so that a batch has several."""
    monkeypatch.setattr(loss_memory, "CPU_PIECE", 2 * 2 * 4 * 15)


def draw(space, dtype=torch.float64, ignored: float = 0.2, seed: int = 0):
    """Random logits and stored indices."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(SHAPE[0], space.n_channels, *SHAPE[1:], generator=generator, dtype=torch.float64)
    labels = torch.randint(0, len(space.integers) + 1, SHAPE, generator=generator)
    labels[torch.rand(SHAPE, generator=generator) < ignored] = IGNORE_INDEX
    return logits.to(dtype), labels.to(torch.uint8)


def differentiated(compute, logits):
    """The value of a function and its gradient by the logits."""
    logits = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    value = compute(logits)
    value.backward()
    return value.detach(), logits.grad


@pytest.mark.parametrize("joined", [False, True], ids=["in pieces", "for a compiler"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("ignored", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("lambda_ce", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_loss_and_gradient_are_those_of_the_plain_form(space, lambda_ce, ignored, layout, joined):
    logits, labels = draw(space, ignored=ignored)
    logits = logits.contiguous(memory_format=layout)
    loss = DiceCE(space, lambda_ce=lambda_ce)
    loss.join_passes((lambda function: function) if joined else None)
    value, gradient = differentiated(lambda z: loss(z, labels).total, logits)
    expected, plain = differentiated(lambda z: plain_dice_ce(space, lambda_ce, z, labels)[0], logits)
    torch.testing.assert_close(value, expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(gradient, plain, atol=1e-12, rtol=1e-9)
    assert gradient.is_contiguous(memory_format=layout), "in the layout of the logits"
    result = loss(logits, labels)
    _, entropy, dice = plain_dice_ce(space, lambda_ce, logits, labels)
    torch.testing.assert_close(result.parts["ce"], entropy, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(result.overlap.dice, dice, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_the_gradient_is_what_small_changes_of_the_logits_make(space):
    logits, labels = draw(space)
    loss = DiceCE(space, lambda_ce=0.4)
    small = logits[:, :, :3, :2, :2].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, labels[:, :3, :2, :2]).total, small)
    targets = LabelTargets(space)
    sums = lambda z: tuple(targets.sums(z, labels[:, :3, :2, :2])[:3])  # noqa: E731
    assert torch.autograd.gradcheck(sums, small)


def test_a_class_that_is_absent_is_only_predicted():
    space = SPACES["classes"]
    logits, labels = draw(space)
    labels[labels == 2] = 0
    loss = DiceCE(space, lambda_ce=0.3)
    value, gradient = differentiated(lambda z: loss(z, labels).total, logits)
    expected, plain = differentiated(lambda z: plain_dice_ce(space, 0.3, z, labels)[0], logits)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, plain)
    absent = space.names.index("bone")  # the stored index 2 is that of the integer 4
    assert float(loss(logits, labels).overlap.true[absent]) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_short_logits_are_differentiated_in_float32_and_rounded_once(space, dtype):
    logits, labels = draw(space, dtype)
    loss = DiceCE(space, lambda_ce=0.4)
    value, gradient = differentiated(lambda z: 1000 * loss(z, labels).total, logits)
    compute = lambda z: 1000 * plain_dice_ce(space, 0.4, z, labels)[0]  # noqa: E731
    expected, plain = differentiated(compute, logits.double())
    assert (value.dtype, gradient.dtype) == (torch.float32, dtype)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    torch.testing.assert_close(gradient, plain.to(dtype), atol=1e-6, rtol=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_logits_far_apart_have_a_finite_loss_and_gradient(space):
    logits, labels = draw(space, torch.float32)
    loss = DiceCE(space, lambda_ce=0.4)
    value, gradient = differentiated(lambda z: loss(z, labels).total, 1000 * logits)
    assert value.isfinite()
    assert gradient.isfinite().all()


def test_ignored_voxels_may_hold_anything():
    space = SPACES["classes"]
    logits, labels = draw(space)
    hidden = (labels == IGNORE_INDEX)[:, None].expand_as(logits)
    loss = DiceCE(space, lambda_ce=0.4)
    value, gradient = differentiated(lambda z: loss(z, labels).total, logits.masked_fill(hidden, torch.nan))
    assert torch.equal(value, loss(logits, labels).total)
    assert not gradient[hidden].any()


def test_pieces_change_nothing(monkeypatch):
    space = SPACES["classes"]
    logits, labels = draw(space)
    loss = DiceCE(space, lambda_ce=0.4)
    value, gradient = differentiated(lambda z: loss(z, labels).total, logits)
    monkeypatch.setattr(loss_memory, "CPU_PIECE", 10**9)
    whole, whole_gradient = differentiated(lambda z: loss(z, labels).total, logits)
    torch.testing.assert_close(value, whole, atol=1e-14, rtol=1e-14)
    torch.testing.assert_close(gradient, whole_gradient, atol=1e-14, rtol=1e-12)


def test_the_loss_repeats_itself_bit_for_bit():
    space = SPACES["classes"]
    logits, labels = draw(space, torch.bfloat16)
    loss = DiceCE(space, lambda_ce=0.4)
    first, second = (differentiated(lambda z: loss(z, labels).total, logits) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
