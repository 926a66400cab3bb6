import json
from pathlib import Path

import makers
import pytest
import torch
from unit.trainers.test_fold_trainer import trainer
from unit.trainers.test_learner import CPU, batch

from autospine.core.errors import TrainingError
from trainers.learner import Learner
from trainers.losses import check_loss, loss_names, make_loss
from trainers.metrics_log import METRICS, summary

MODULE = """
from types import SimpleNamespace
import torch.nn.functional as F
from torch import nn

class Brier(nn.Module):
    def __init__(self, labels, weight=1.0):
        super().__init__()
        self.classes, self.weight = labels.n_channels, weight

    def forward(self, logits, labels):
        wanted = F.one_hot(labels.long().clamp(max=self.classes - 1), self.classes).movedim(-1, 1)
        squares = (logits.softmax(1) - wanted) ** 2
        bone, others = squares[:, 1].mean(), squares[:, ::2].mean()
        return SimpleNamespace(total=self.weight * (bone + others), parts={"bone": bone, "others": others})

class Fixed(nn.Module):
    def __init__(self, labels, result):
        super().__init__()
        self.result = result

    def forward(self, logits, labels):
        mean = logits.mean()
        return {
            "number": 1.0,
            "tensor": mean,
            "constant": SimpleNamespace(total=mean.detach(), parts={}),
            "volume": SimpleNamespace(total=logits, parts={}),
            "no parts": SimpleNamespace(total=mean),
            "list": SimpleNamespace(total=mean, parts=[mean]),
            "vector": SimpleNamespace(total=mean, parts={"all": logits}),
        }[self.result]

def function(labels):
    return lambda logits, labels: logits.mean()

def raising(labels):
    raise ZeroDivisionError("no classes")

def leaving(labels):
    raise SystemExit("goodbye")

class Failing(nn.Module):
    def __init__(self, labels):
        super().__init__()

    def forward(self, logits, labels):
        raise IndexError("beyond the end")

number = 3
"""

ENTRIES = """[autospine.losses]
brier = other_losses:Brier
fixed = other_losses:Fixed
function = other_losses:function
raising = other_losses:raising
leaving = other_losses:leaving
failing = other_losses:Failing
number = other_losses:number
broken = no_such_module_of_losses:loss
dice_ce = other_losses:number
"""


@pytest.fixture(autouse=True)
def installed(tmp_path_factory, monkeypatch) -> Path:
    """A distribution with losses, good and bad ones."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "other_losses.py").write_text(MODULE, encoding="utf-8")
    makers.install_distribution(folder, "other", ENTRIES)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def learner(loss: str, **settings) -> Learner:
    plan = makers.plan(makers.configuration(training={"loss": loss, "loss_settings": settings}))
    return Learner(plan, plan.configurations[0], seed=0, device=CPU)


def test_the_built_in_loss_is_not_hidden_by_another_of_its_name():
    assert loss_names() == ("dice_ce", *sorted(set(loss_names()) - {"dice_ce"}))
    recipe = makers.configuration().training
    assert make_loss(makers.LABELS, recipe).lambda_ce == recipe.lambda_ce
    check_loss("dice_ce")


def test_a_loss_of_another_distribution_is_trained_with_its_settings_and_parts():
    one, two = (learner("brier", weight=weight) for weight in (1.0, 2.0))
    plain, double = (made.step(*batch(), 0.02) for made in (one, two))
    assert set(plain.parts) == {"bone", "others"}
    assert plain.loss == pytest.approx(sum(plain.parts.values()))
    assert double.loss == pytest.approx(2 * plain.loss)
    losses = [one.step(*batch(), 0.02).loss for _ in range(6)]
    assert losses[-1] < plain.loss


def test_the_dice_of_an_epoch_does_not_depend_on_the_loss():
    usual, other = (learner(loss).step(*batch(), 0.02) for loss in ("dice_ce", "brier"))
    for a, b in zip(usual.overlap, other.overlap, strict=True):
        assert b == pytest.approx(a, rel=1e-5)


def test_its_parts_are_in_the_record_and_in_the_curves(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "trainers.metrics_log.write_curves", lambda path, rows, **_: drawn.extend(rows) or path.touch()
    )
    rng = torch.Generator().manual_seed(0)
    indices = makers.column()
    noise = 0.2 * torch.randn(indices.shape, generator=rng).numpy()
    case = makers.store_case(tmp_path / "stored", "a", indices + noise, indices)
    recipe = {"iterations_per_epoch": 2, "loss": "brier"}
    trainer([case], tmp_path / "fold_0", configuration=makers.configuration(training=recipe)).run(None)
    rows = [json.loads(line) for line in (tmp_path / "fold_0" / METRICS).read_text().splitlines()]
    for row in rows:
        assert set(row["loss_parts"]) == {"bone", "others"}
        assert row["loss"] == pytest.approx(sum(row["loss_parts"].values()), abs=2e-5)
        assert "ce" not in row
        assert "bone 0." in summary(row)[0]
    assert drawn[-1]["loss_parts"] == rows[-1]["loss_parts"]


@pytest.mark.parametrize(
    ("loss", "settings", "message"),
    [
        ("broken", {}, r"'broken' .*other 1\.0 cannot be loaded: ModuleNotFoundError.*another loss"),
        ("number", {}, r"'number' .*other 1\.0 to be callable, found int.*another loss"),
        ("raising", {}, r"'raising' .*other 1\.0 cannot be made: ZeroDivisionError: no classes"),
        ("brier", {"heavy": True}, r"'brier' .*other 1\.0 cannot be made.*heavy.*loss_settings.*plan\.json"),
        ("leaving", {}, r"'leaving' .*other 1\.0 cannot be made: SystemExit: goodbye"),
        ("function", {}, r"'function' .*other 1\.0 to make a torch module, found function"),
        ("absent", {}, r"'absent' .*autospine\.losses, found none"),
        ("dice_ce", {"lambda_ce": 0.3}, r"'dice_ce' cannot be made.*lambda_ce.*plan\.json"),
    ],
)
def test_a_loss_that_cannot_be_made_is_named_with_its_distribution(loss, settings, message):
    with pytest.raises(TrainingError, match=message):
        learner(loss, **settings)


@pytest.mark.parametrize(
    ("result", "found"),
    [
        ("number", "a LossResult, found 'float'"),
        ("tensor", "a LossResult, found 'Tensor'"),
        ("constant", "a scalar tensor with a gradient as its total, found a tensor of shape"),
        ("volume", "a scalar tensor with a gradient as its total, found a tensor of shape"),
        ("no parts", "a LossResult, found 'SimpleNamespace'"),
        ("list", "a mapping from names to scalar tensors as its parts"),
        ("vector", r"a scalar tensor as its part 'all', found a tensor of shape \(1, 3, 16, 16, 16\)"),
    ],
)
def test_a_result_that_lacks_what_is_needed_is_refused(result, found):
    with pytest.raises(TrainingError, match=rf"'fixed' .*other 1\.0 to return {found}.*another loss"):
        learner("fixed", result=result).step(*batch(), 0.02)


def test_a_loss_that_fails_is_named():
    with pytest.raises(TrainingError, match=r"'failing' .*other 1\.0 has failed: IndexError: beyond the end"):
        learner("failing").step(*batch(), 0.02)


def test_a_loss_that_two_distributions_have_is_refused(installed):
    makers.install_distribution(installed, "another", ENTRIES)
    with pytest.raises(TrainingError, match=r"one installed .*'brier'.*found .*other 1\.0.*uninstall"):
        learner("brier")


@pytest.mark.parametrize("name", ["broken", "number", "absent"])
def test_names_are_checked_before_they_are_used(name):
    with pytest.raises(TrainingError, match=name):
        check_loss(name)
    check_loss("brier")
