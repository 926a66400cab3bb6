import makers
import pytest
import torch

from autospine.checkpoint import load_tensors, save_tensors
from trainers.learner import IMPORTED_SHARE, Learner, Step

CPU = torch.device("cpu")
RATE = 0.02


def learner(seed: int = 0, **training) -> Learner:
    plan = makers.plan(makers.configuration(training=training))
    return Learner(plan, plan.configurations[0], seed=seed, device=CPU)


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """An image that shows its labels, with noise."""
    labels = torch.from_numpy(makers.column((16, 16, 24))[None, :, :, 4:20].copy())
    noise = torch.randn(labels.shape, generator=torch.Generator().manual_seed(seed))
    return (labels.float() + 0.1 * noise)[None], labels


def weights(made: Learner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in made.network.state_dict().items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        torch.testing.assert_close(b[name], tensor, rtol=0, atol=0, msg=name)


def test_steps_lower_the_loss():
    made = learner()
    images, labels = batch()
    losses = [made.step(images, labels, RATE).loss for _ in range(8)]
    assert losses[-1] < 0.9 * losses[0]


def test_a_step_tells_what_it_showed():
    step = learner().step(*batch(), RATE)
    assert step.finite
    assert len(step.dice) == 2
    assert all(0 <= dice <= 1 for dice in step.dice)
    assert step.loss == pytest.approx(0.5 * step.cross_entropy + 0.5 * (1 - sum(step.dice) / 2), rel=1e-4)


def test_the_seed_decides_the_first_weights():
    assert_same(weights(learner(1)), weights(learner(1)))
    first, other = weights(learner(1)), weights(learner(2))
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_restored_checkpoint_gives_the_same_next_step(tmp_path, precision):
    made = learner(precision=precision)
    for seed in range(2):
        made.step(*batch(seed), RATE)
    save_tensors(tmp_path / "x.safetensors", made.tensors(), {})
    expected = made.step(*batch(2), RATE)

    again = learner(seed=5, precision=precision)
    again.restore(load_tensors(tmp_path / "x.safetensors")[0])
    assert again.step(*batch(2), RATE) == expected
    assert_same(weights(made), weights(again))
    assert_same(made.tensors(), again.tensors())
    assert_same(made.averaged().state_dict(), again.averaged().state_dict())


def test_a_step_with_a_gradient_that_is_not_finite_is_not_taken():
    made = learner()
    made.step(*batch(), RATE)
    before = {name: tensor.clone() for name, tensor in made.tensors().items()}
    images, labels = batch()
    step = made.step(torch.full_like(images, 3e38), labels, RATE)
    assert not step.finite
    assert_same(before, made.tensors())
    assert made.step(images, labels, RATE).finite


def test_averaged_weights_follow_the_weights():
    made = learner()
    before = weights(made)
    made.step(*batch(), RATE)
    after = weights(made)
    average = made.averaged().state_dict()
    for name, tensor in before.items():
        # After one step the average's window is 1 / (1 + 0.05).
        torch.testing.assert_close(average[name], torch.lerp(tensor, after[name], 1 / 1.05), msg=name)


def test_the_average_ends_with_the_plans_decay():
    made = learner(ema_decay=0.5)
    for seed in range(2):
        made.step(*batch(seed), RATE)
    average = {n.removeprefix("averaged."): t.clone() for n, t in made.tensors().items() if "averaged" in n}
    made._updates = 10**6
    made.step(*batch(3), RATE)
    now = weights(made)
    for name, tensor in made.averaged().state_dict().items():
        torch.testing.assert_close(tensor, torch.lerp(average[name], now[name], 0.5), msg=name)


def test_averaged_networks_are_ready_to_predict():
    made = learner()
    made.step(*batch(), RATE)
    assert not made.averaged().training


def test_every_parameter_is_learnt_once_and_only_matrices_decay():
    made = learner(weight_decay=0.125)
    groups = made._optimizer.param_groups
    learnt = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(learnt) == sorted(id(parameter) for parameter in made.network.parameters())
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in made.network.named_parameters():
        matrix = parameter.ndim >= 2 and "bias" not in name
        assert decay[id(parameter)] == (0.125 if matrix else 0.0), name


def test_no_learning_rate_leaves_the_weights():
    made = learner()
    before = weights(made)
    made.step(*batch(), 0.0)
    assert_same(before, weights(made))


def test_every_trainable_part_moves():
    made = learner()
    before = {name: parameter.detach().clone() for name, parameter in made.network.named_parameters()}
    for seed in range(2):
        made.step(*batch(seed), RATE)
    still = [name for name, p in made.network.named_parameters() if torch.equal(p, before[name])]
    assert not still


def imported() -> dict[str, torch.Tensor]:
    """Weights of the embedding and the first stage, from another network."""
    return {n: t for n, t in weights(learner(9)).items() if n.startswith(("embedding.", "stages.0."))}


def test_imported_weights_are_the_start_and_the_others_are_drawn():
    plan = makers.plan(makers.configuration())
    begun = Learner(plan, plan.configurations[0], seed=0, device=CPU, imported=imported())
    assert_same(weights(begun), {**weights(learner(0)), **imported()})
    assert_same(begun.averaged().state_dict(), weights(begun))


def test_imported_weights_learn_slower_than_random_ones_of_their_size():
    plan = makers.plan(makers.configuration())
    begun = Learner(plan, plan.configurations[0], seed=0, device=CPU, imported=imported())
    other, names = learner(9), [name for name, _ in begun.network.named_parameters()]
    for name, mine, random, same in zip(
        names, *(made._optimizer.param_groups for made in (begun, learner(0), other)), strict=True
    ):
        expected = IMPORTED_SHARE * same["scale"] if name in imported() else random["scale"]
        assert mine["scale"] == pytest.approx(expected), name


def test_steps_can_be_compared():
    assert Step(loss=1.0, cross_entropy=1.0, dice=(0.5,), finite=True) == Step(
        loss=1.0, cross_entropy=1.0, dice=(0.5,), finite=True
    )
