import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.core.labels import IGNORE_INDEX, parse_labels
from trainers.losses.dice_ce import DiceCE

PLAIN = parse_labels({"background": 0, "bone": 4, "canal": 9})
REGIONS = parse_labels({"whole": [1, 2], "core": [2]}, regions_class_order=(1, 2))
SHAPE = (2, 4, 5, 6)
VOXELS = math.prod(SHAPE)
LAMBDAS = st.sampled_from([0.0, 0.3, 0.5, 1.0])
SEEDS = st.integers(0, 999)


def dice_ce(space, lambda_ce):
    """The loss as a function to total, cross-entropy and overlap."""
    criterion = DiceCE(space, lambda_ce=lambda_ce)

    def compute(logits, labels):
        result = criterion(logits, labels)
        return result.total, result.parts["ce"], result.overlap

    return compute


def draw(seed: int, space=PLAIN, ignored: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits and stored indices."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(SHAPE[0], space.n_channels, *SHAPE[1:], generator=generator)
    labels = torch.randint(0, 3, SHAPE, generator=generator)
    labels[torch.rand(SHAPE, generator=generator) < ignored] = IGNORE_INDEX
    return logits, labels.to(torch.uint8)


def confident(space, labels: torch.Tensor) -> torch.Tensor:
    """Logits of a perfect prediction."""
    table = torch.from_numpy(space.membership)
    return 60.0 * (table[:, labels.long()].movedim(0, 1).float() - 0.5)


@pytest.mark.parametrize("space", [PLAIN, REGIONS])
@given(SEEDS, LAMBDAS)
@settings(deadline=None, max_examples=10)
def test_a_perfect_prediction_costs_nothing(space, seed, lambda_ce):
    _, labels = draw(seed)
    loss, entropy, overlap = dice_ce(space, lambda_ce)(confident(space, labels), labels)
    assert float(loss) == pytest.approx(0, abs=1e-5)
    assert float(entropy) == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(overlap.dice, torch.ones(2))
    torch.testing.assert_close(overlap.both, overlap.true)
    torch.testing.assert_close(overlap.predicted, overlap.true)


def test_no_opinion_costs_the_logarithm_of_the_classes():
    labels = torch.zeros(SHAPE, dtype=torch.uint8)
    labels[:, :2] = 1
    loss, entropy, overlap = dice_ce(PLAIN, 0.5)(torch.zeros(SHAPE[0], 3, *SHAPE[1:]), labels)
    n = VOXELS / 2
    bone = (2 * n / 3 + 1) / (VOXELS / 3 + n + 1)
    canal = 1 / (VOXELS / 3 + 1)
    assert float(entropy) == pytest.approx(math.log(3))
    assert overlap.dice.tolist() == pytest.approx([bone, canal])
    assert overlap.both.tolist() == pytest.approx([n / 3, 0])
    assert overlap.predicted.tolist() == pytest.approx([VOXELS / 3] * 2)
    assert overlap.true.tolist() == [n, 0]
    assert float(loss) == pytest.approx(0.5 * math.log(3) + 0.5 * (1 - (bone + canal) / 2))


def test_regions_without_opinion_cost_the_logarithm_of_two():
    labels = torch.full(SHAPE, 2, dtype=torch.uint8)
    loss, entropy, overlap = dice_ce(REGIONS, 0.25)(torch.zeros(SHAPE[0], 2, *SHAPE[1:]), labels)
    each = (VOXELS + 1) / (1.5 * VOXELS + 1)
    assert float(entropy) == pytest.approx(math.log(2))
    assert overlap.dice.tolist() == pytest.approx([each, each])
    assert float(loss) == pytest.approx(0.25 * math.log(2) + 0.75 * (1 - each))


def test_the_opposite_of_the_truth_has_no_overlap():
    labels = torch.zeros(SHAPE, dtype=torch.uint8)
    wrong = confident(PLAIN, torch.full(SHAPE, 1, dtype=torch.uint8))
    _, entropy, overlap = dice_ce(PLAIN, 0.5)(wrong, labels)
    assert float(entropy) == pytest.approx(60)
    assert overlap.dice.tolist() == pytest.approx([1 / (VOXELS + 1), 1.0])


@given(SEEDS, LAMBDAS)
@settings(deadline=None, max_examples=10)
def test_the_loss_is_its_parts_weighted_by_lambda(seed, lambda_ce):
    logits, labels = draw(seed)
    loss, entropy, overlap = dice_ce(PLAIN, lambda_ce)(logits, labels)
    assert float(loss) == pytest.approx(
        lambda_ce * float(entropy) + (1 - lambda_ce) * (1 - float(overlap.dice.mean()))
    )
    reference = torch.nn.functional.cross_entropy(logits, labels.long())
    assert float(entropy) == pytest.approx(float(reference), rel=1e-5)


@pytest.mark.parametrize("space", [PLAIN, REGIONS])
@given(SEEDS, LAMBDAS)
@settings(deadline=None, max_examples=10)
def test_ignored_voxels_have_no_influence(space, seed, lambda_ce):
    logits, labels = draw(seed, space, ignored=0.3)
    ignored = (labels == IGNORE_INDEX)[:, None]
    criterion = dice_ce(space, lambda_ce)
    results = []
    for noise in (0.0, 1.0):
        changed = (logits + noise * ignored * 5).requires_grad_()
        loss, entropy, overlap = criterion(changed, labels)
        loss.backward()
        results.append((loss.detach(), entropy, overlap, changed.grad))
        assert not changed.grad[ignored.expand_as(changed)].any()
    for before, after in zip(*results, strict=True):
        torch.testing.assert_close(after, before)


@pytest.mark.parametrize("space", [PLAIN, REGIONS])
def test_an_ignored_slab_is_as_good_as_cut_off(space):
    logits, labels = draw(5, space)
    labels[:, :, :, 4:] = IGNORE_INDEX
    criterion = dice_ce(space, 0.5)
    whole, cut = criterion(logits, labels), criterion(logits[..., :4].contiguous(), labels[..., :4])
    for a, b in zip(whole, cut, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("space", [PLAIN, REGIONS])
def test_nothing_but_ignored_voxels_costs_nothing(space):
    logits, labels = draw(1, space)
    logits.requires_grad_()
    loss, _, _ = dice_ce(space, 0.5)(logits, torch.full_like(labels, IGNORE_INDEX))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert not logits.grad.any()


@given(SEEDS, LAMBDAS, st.sampled_from([0.0, 0.2]))
@settings(deadline=None, max_examples=10)
def test_one_region_and_one_class_agree(seed, lambda_ce, ignored):
    """A sigmoid of z is a softmax of (0, z)."""
    generator = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(SHAPE[0], 1, *SHAPE[1:], generator=generator)
    labels = torch.randint(0, 2, SHAPE, generator=generator).to(torch.uint8)
    labels[torch.rand(SHAPE, generator=generator) < ignored] = IGNORE_INDEX
    plain = dice_ce(parse_labels({"bone": 1}), lambda_ce)
    region = dice_ce(parse_labels({"bone": [1]}, regions_class_order=(1,)), lambda_ce)
    both = torch.cat([torch.zeros_like(z), z], dim=1)
    for a, b in zip(plain(both, labels), region(z, labels), strict=True):
        torch.testing.assert_close(a, b)


def test_an_absent_class_that_is_not_predicted_costs_nothing():
    labels = torch.zeros(SHAPE, dtype=torch.uint8)
    _, _, overlap = dice_ce(PLAIN, 0.5)(confident(PLAIN, labels), labels)
    torch.testing.assert_close(overlap.dice, torch.ones(2))


@given(SEEDS)
@settings(deadline=None, max_examples=10)
def test_a_step_down_the_gradient_lowers_the_loss(seed):
    logits, labels = draw(seed, ignored=0.1)
    criterion = dice_ce(PLAIN, 0.5)
    logits.requires_grad_()
    loss = criterion(logits, labels)[0]
    loss.backward()
    lower = criterion((logits - logits.grad).detach(), labels)[0]
    assert float(lower) < float(loss.detach())


def test_half_precision_scores_are_weighed_in_single_precision():
    logits, labels = draw(3)
    loss, _, overlap = dice_ce(PLAIN, 0.5)(logits.bfloat16(), labels)
    expected, _, _ = dice_ce(PLAIN, 0.5)(logits.bfloat16().float(), labels)
    assert {loss.dtype, *(each.dtype for each in overlap)} == {torch.float32}
    torch.testing.assert_close(loss, expected)
