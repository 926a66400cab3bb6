import json
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import makers
import pytest
import torch

from autospine.core.errors import ImageError
from autospine.storage.tensors import load_tensors, save_tensors
from trainers.learner import Learner, amp_dtype
from trainers.losses.dice_ce import DiceCE
from trainers.optimizer import IMPORTED_SHARE, parameter_groups
from trainers.step_result import StepResult

CPU = torch.device("cpu")
RATE = 0.02


def learner(seed: int = 0, *, deep_supervision=False, compiled=False, loss=None, **training) -> Learner:
    plan = makers.plan(makers.configuration(training=training))
    return Learner(
        plan,
        plan.configurations[0],
        seed=seed,
        device=CPU,
        deep_supervision=deep_supervision,
        compiled=compiled,
        loss=loss,
    )


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """An image that shows its labels, with noise."""
    labels = torch.from_numpy(makers.column((16, 16, 24))[None, :, :, 4:20].copy())
    noise = torch.randn(labels.shape, generator=torch.Generator().manual_seed(seed))
    return (labels.float() + 0.1 * noise)[None], labels


def multiply_natively(monkeypatch, half: torch.dtype | None) -> None:
    """Let the device multiply this format, whatever it is."""
    monkeypatch.setattr("trainers.learner.native_half", lambda _: half)


def weights(made: Learner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in made.network.state_dict().items()}


def kept(made: Learner) -> dict[str, torch.Tensor]:
    """What a checkpoint keeps, less the state of Python's random numbers, which the checks of types draw."""
    return {name: tensor.clone() for name, tensor in made.tensors().items() if name != "random.python"}


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
    dice = [(2 * both + 1) / (predicted + true + 1) for both, predicted, true in step.overlap]
    assert len(dice) == 2
    assert all(0 <= each <= 1 for each in dice)
    assert list(step.parts) == ["ce", "dice_loss"]
    assert step.parts["dice_loss"] == pytest.approx(1 - sum(dice) / 2, rel=1e-5)
    assert step.loss == pytest.approx(0.5 * step.parts["ce"] + 0.5 * step.parts["dice_loss"], rel=1e-4)


def test_the_seed_decides_the_first_weights():
    assert_same(weights(learner(1)), weights(learner(1)))
    first, other = weights(learner(1)), weights(learner(2))
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    "choices",
    [
        {"precision": "float32"},
        {"precision": "bfloat16"},
        {"precision": "float16"},
        {"deep_supervision": True},
    ],
    ids=lambda choices: str(*choices.values()),
)
def test_a_restored_checkpoint_gives_the_same_next_step(tmp_path, monkeypatch, choices):
    multiply_natively(monkeypatch, getattr(torch, choices.get("precision", "float32")))
    made = learner(**choices)
    for seed in range(2):
        made.step(*batch(seed), RATE)
    save_tensors(tmp_path / "x.safetensors", made.tensors(), {})
    expected = made.step(*batch(2), RATE)

    again = learner(seed=5, **choices)
    again.restore(load_tensors(tmp_path / "x.safetensors")[0])
    assert again.step(*batch(2), RATE) == expected
    assert_same(weights(made), weights(again))
    assert_same(kept(made), kept(again))
    assert_same(made.averaged().state_dict(), again.averaged().state_dict())


def test_a_step_with_a_gradient_that_is_not_finite_is_not_taken():
    made = learner()
    made.step(*batch(), RATE)
    before = kept(made)
    images, labels = batch()
    step = made.step(torch.full_like(images, 3e38), labels, RATE)
    assert not step.finite
    assert_same(before, kept(made))
    assert made.step(images, labels, RATE).finite


@pytest.mark.parametrize(
    "choices", [{}, {"deep_supervision": True}, {"precision": "bfloat16"}], ids=lambda choices: str(choices)
)
def test_to_predict_with_the_averaged_weights_changes_nothing(monkeypatch, choices):
    multiply_natively(monkeypatch, getattr(torch, choices.get("precision", "float32")))
    made, undisturbed = learner(**choices), learner(**choices)
    for each in (made, undisturbed):
        each.step(*batch(), RATE)
    before = kept(made)

    def draw(network, *_) -> None:
        if not network.training:
            torch.rand(3)

    made.network.register_forward_hook(draw)
    images = batch()[0]
    with made.predicting() as predict:
        logits = predict(images)
    assert logits.shape == (len(images), 3, *images.shape[-3:])
    assert not logits.requires_grad
    assert_same(before, kept(made))
    assert made.step(*batch(1), RATE) == undisturbed.step(*batch(1), RATE)
    assert_same(weights(made), weights(undisturbed))


def test_it_is_the_averaged_weights_that_predict():
    made = learner()
    for seed in range(4):
        made.step(*batch(seed), RATE)
    images, _ = batch()
    with made.predicting() as predict:
        predicted = predict(images)
    with torch.no_grad():
        assert torch.equal(predicted, made.averaged()(images))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_with_a_loss_that_is_not_finite_is_not_taken(value):
    class Broken(DiceCE):
        """The usual loss, and once `value` is added no finite one, with gradients that stay finite."""

        added = 0.0

        def forward(self, logits, labels):
            result = super().forward(logits, labels)
            return replace(result, total=result.total + self.added)

    loss = Broken(makers.LABELS, lambda_ce=0.5)
    made = learner(loss=loss)
    made.step(*batch(), RATE)
    before = kept(made)
    loss.added = value
    assert not made.step(*batch(), RATE).finite
    assert_same(before, kept(made))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16, None])
def test_activations_have_16_bits_where_the_device_multiplies_them(monkeypatch, half):
    multiply_natively(monkeypatch, half)
    assert amp_dtype("float32", CPU) == torch.float32
    for planned in ("bfloat16", "float16"):
        assert amp_dtype(planned, CPU) == (half or torch.float32)


def test_float16_scales_the_loss_and_a_step_that_overflows_lowers_the_scale(monkeypatch):
    multiply_natively(monkeypatch, torch.float16)
    made = learner(precision="float16")
    assert made.step(*batch(), RATE).finite
    scale = float(made.tensors()["scaler.scale"])
    assert scale > 1
    before = weights(made)
    made.restore({**made.tensors(), "scaler.scale": torch.tensor(1e38, dtype=torch.float64)})
    step = made.step(*batch(), RATE)
    assert not step.finite
    assert step.loss < 10
    assert_same(before, weights(made))
    assert float(made.tensors()["scaler.scale"]) == pytest.approx(5e37, rel=1e-3)


def test_other_formats_need_no_scale(monkeypatch):
    multiply_natively(monkeypatch, torch.bfloat16)
    for precision in ("float32", "bfloat16"):
        assert not [name for name in learner(precision=precision).tensors() if "scaler" in name]


# Deep supervision.


def test_heads_are_learnt_kept_in_checkpoints_and_left_out_of_the_network():
    plain, made = learner(), learner(deep_supervision=True)
    assert_same(weights(plain), weights(made))
    heads = {name: t.clone() for name, t in made.tensors().items() if name.startswith("heads.")}
    assert heads
    made.step(*batch(), RATE)
    moved = made.tensors()
    assert all(not torch.equal(moved[name], tensor) for name, tensor in heads.items())
    assert made.averaged().state_dict().keys() == plain.averaged().state_dict().keys()
    assert {n for n in moved if n.startswith("averaged.")} == {f"averaged.{n}" for n in weights(plain)}


def test_the_loss_that_is_shown_is_that_of_full_resolution():
    shown, plain = (learner(deep_supervision=deep).step(*batch(), RATE) for deep in (True, False))
    assert shown == plain


def test_imported_weights_learn_slower_under_deep_supervision_too():
    plan = makers.plan(makers.configuration())
    deep, plain = (
        Learner(plan, plan.configurations[0], seed=0, device=CPU, imported=imported(), deep_supervision=deep)
        for deep in (True, False)
    )
    scales = plain.tensors()["scales"]
    assert torch.equal(deep.tensors()["scales"][: len(scales)], scales)


# Compilation.


class Breaking(torch.autograd.Function):
    """The identity, whose gradient cannot be had."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError("no kernel\nand more")


def breaks_forward(network, backend):
    def run(images):
        raise RuntimeError("no kernel\nand more")

    return run


def breaks_backward(network, backend):
    return lambda images: Breaking.apply(network(images))


@pytest.mark.parametrize("compiler", [breaks_forward, breaks_backward])
def test_where_compilation_fails_it_is_said_once_and_training_goes_on(monkeypatch, caplog, compiler):
    monkeypatch.setattr(torch, "compile", compiler)
    made, plain = learner(compiled=True), learner()
    for seed in range(2):
        assert made.step(*batch(seed), RATE) == plain.step(*batch(seed), RATE)
    assert_same(weights(plain), weights(made))
    (said,) = caplog.messages
    assert said.startswith("the network could not be compiled (RuntimeError: no kernel); training goes on ")
    assert "install gcc and python3-dev" in said


def test_a_step_that_fails_once_gradients_are_scaled_back_can_be_repeated(monkeypatch):
    multiply_natively(monkeypatch, torch.float16)
    made, undisturbed = learner(precision="float16"), learner(precision="float16")

    def be_full(*_):
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patched, pytest.raises(torch.OutOfMemoryError):
        patched.setattr(torch.nn.utils, "clip_grad_norm_", be_full)
        made.step(*batch(), RATE)
    made.forget_step()
    for seed in range(2):
        assert made.step(*batch(seed), RATE) == undisturbed.step(*batch(seed), RATE)
    assert_same(weights(undisturbed), weights(made))


COMPILED = """
import logging, sys, torch
sys.path[:0] = [{tests!r}]
import makers
from trainers import learner as module
from trainers.learner import Learner

def broken(graph, inputs):
    raise RuntimeError("no compiler")

said = []
module.logger.warning = lambda message, *words: said.append(message % words)
configuration = makers.configuration()
plan = makers.plan(configuration)
images = torch.randn(1, 1, 16, 16, 16)
labels = torch.from_numpy(makers.column((16, 16, 16)))[None]

def run(**choices):
    made = Learner(plan, configuration, seed=0, device=torch.device("cpu"), **choices)
    steps = [made.step(images, labels, 0.02) for _ in range(2)]
    return steps, made.network.state_dict()

for deep, backend, messages in ((True, "eager", 0), (False, broken, 1)):
    expected, weights = run(deep_supervision=deep)
    said.clear()
    module.COMPILER = backend
    found, others = run(deep_supervision=deep, compiled=True)
    assert found == expected, (backend, found, expected)
    assert len(said) == messages, said
    assert all(torch.equal(weights[name], others[name]) for name in weights)
"""


@pytest.mark.slow
def test_torchs_compiler_is_used_and_may_fail():
    """In a process of its own, because the compiler does not see through the checks of types in tests."""
    script = COMPILED.format(tests=str(Path(__file__).parents[2]))
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_faults_that_are_not_the_compilers_are_raised():
    made = learner()
    with pytest.raises(ImageError):
        made.step(torch.full((1, 1, 16, 16, 16), float("nan")), batch()[1], RATE)


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
    made.restore({**made.tensors(), "updates": torch.tensor(10**6)})
    made.step(*batch(3), RATE)
    now = weights(made)
    for name, tensor in made.averaged().state_dict().items():
        torch.testing.assert_close(tensor, torch.lerp(average[name], now[name], 0.5), msg=name)


@pytest.mark.parametrize("sample", [False, True])
def test_the_memory_of_the_logits_is_free_in_the_backward_pass(sample):
    made, logits, alive = learner(), [], []

    def note(_: torch.Tensor) -> None:
        alive.append(logits[0]() is not None)

    network = made.network
    network.register_forward_hook(
        lambda module, images, output: logits.append(weakref.ref(output.untyped_storage()))
    )
    network.register_forward_hook(lambda module, images, output: note(output))
    # The first layer has its gradient last.
    network.embedding.weight.register_post_accumulate_grad_hook(note)
    made.step(*batch(), RATE, sample=sample)
    assert alive == [True, False]


def test_averaged_networks_are_ready_to_predict():
    made = learner()
    made.step(*batch(), RATE)
    assert not made.averaged().training


def test_every_parameter_is_learnt_once_and_only_matrices_decay():
    network = learner().network
    groups = parameter_groups(network, 0.125)
    learnt = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(learnt) == sorted(id(parameter) for parameter in network.parameters())
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in network.named_parameters():
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
    # A saliency that is the same for all keys leaves the softmax as it is, until its bound bends it.
    assert not [name for name in still if not name.endswith("saliency.bias")]


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
    alike = Learner(plan, plan.configurations[0], seed=0, device=CPU, imported=imported(), imported_share=1.0)
    names, weights = [name for name, _ in begun.network.named_parameters()], imported()
    scales = (made.tensors()["scales"].tolist() for made in (begun, learner(0), learner(9), alike))
    for name, mine, random, same, full in zip(names, *scales, strict=True):
        expected = IMPORTED_SHARE * same if name in weights else random
        assert mine == pytest.approx(expected), name
        assert full == pytest.approx(same if name in weights else random), name


def test_a_step_is_kept_as_json_and_one_of_before_lacks_its_overlap():
    step = learner().step(*batch(), RATE, sample=True)
    plain = json.loads(json.dumps(step.plain()))
    assert StepResult.restored(plain) == step
    dice = [(2 * both + 1) / (predicted + true + 1) for both, predicted, true in plain.pop("overlap")]
    assert StepResult.restored(plain) == replace(step, overlap=())
    # Before the loss could be chosen, its parts had keys of their own.
    earlier = {**plain, "cross_entropy": plain.pop("parts")["ce"], "dice": dice}
    del earlier["parts"]
    restored = StepResult.restored(earlier)
    assert restored.parts == pytest.approx(step.parts, rel=1e-5)
    assert replace(restored, parts=step.parts) == replace(step, overlap=())


def test_steps_can_be_compared():
    assert StepResult(loss=1.0, parts={"ce": 1.0}, finite=True) == StepResult(
        loss=1.0, parts={"ce": 1.0}, finite=True
    )
