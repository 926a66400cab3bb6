import json
from pathlib import Path

import makers
import numpy as np
import pytest
import torch
from unit.trainers.test_fold_trainer import trainer
from unit.trainers.test_learner import CPU, batch

from autospine.core.errors import TrainingError
from autospine.core.plugins import warn_if_hidden
from autospine.storage.tensors import load_facts
from autospine.storage.trained_models import WEIGHTS
from trainers.learner import Learner
from trainers.losses import check_loss, loss_names, make_loss
from trainers.losses.loss import RESERVED
from trainers.metrics_log import EARLY_STOP, METRICS, PART_COLUMNS, read_rows, summary

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
            "nan": SimpleNamespace(total=mean * float("nan"), parts={"bone": mean}),
            "infinite": SimpleNamespace(total=mean.exp() + float("inf"), parts={"bone": mean}),
            "nan part": SimpleNamespace(total=mean, parts={"bone": mean * float("nan")}),
            "both": SimpleNamespace(total=mean / 0 * 0, parts={"bone": mean - float("inf")}),
            "gradient": SimpleNamespace(total=(mean - mean).sqrt(), parts={"bone": mean}),
        }[self.result]

class Named(nn.Module):
    def __init__(self, labels, name):
        super().__init__()
        self.name = name

    def forward(self, logits, labels):
        return SimpleNamespace(total=logits.mean(), parts={self.name: logits.mean()})

class Coarse(nn.Module):
    def __init__(self, labels):
        super().__init__()

    def forward(self, logits, labels):
        factor = 1.0 if logits.shape[2] == 16 else float("nan")
        return SimpleNamespace(total=logits.mean() * factor, parts={})

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

class Bare(nn.Module):
    def __init__(self):
        super().__init__()

number = 3
"""

ENTRIES = """[autospine.losses]
bare = other_losses:Bare
brier = other_losses:Brier
fixed = other_losses:Fixed
named = other_losses:Named
coarse = other_losses:Coarse
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


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    indices = makers.column()
    image = indices + np.random.default_rng(0).normal(0, 0.2, indices.shape)
    return makers.store_case(tmp_path_factory.mktemp("stored"), "a", image, indices)


def train(case, folder: Path, loss: str, iterations: int = 3, **choices) -> Path:
    """Train two epochs of a fold with a loss; `result` and `name` are its settings."""
    settings = {key: choices.pop(key) for key in ("result", "name") if key in choices}
    recipe = {"iterations_per_epoch": iterations, "loss": loss, "loss_settings": settings}
    configuration = makers.configuration(training=recipe)
    trainer([case], folder, configuration=configuration, **choices).run(None)
    return folder


def learner(loss: str, **settings) -> Learner:
    plan = makers.plan(makers.configuration(training={"loss": loss, "loss_settings": settings}))
    return Learner(plan, plan.configurations[0], seed=0, device=CPU)


def test_the_built_in_loss_is_not_hidden_by_another_of_its_name(caplog):
    warn_if_hidden.cache_clear()
    assert loss_names() == ("dice_ce", *sorted(set(loss_names()) - {"dice_ce"}))
    recipe = makers.configuration().training
    assert make_loss(makers.LABELS, recipe).lambda_ce == recipe.lambda_ce
    check_loss("dice_ce")
    assert caplog.text.count("'dice_ce' (other_losses:number)") == 1


def test_the_settings_are_not_blamed_where_there_are_none():
    with pytest.raises(
        TrainingError, match=r"'bare'.*cannot be made: TypeError.*; mend or uninstall it"
    ) as caught:
        learner("bare")
    assert "loss_settings" not in str(caught.value)


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


NOT_FINITE = {
    "nan": "its total is nan",
    "infinite": "its total is inf",
    "both": "its total is nan, its part 'bone' is -inf",
    "gradient": "its total is finite, but has a gradient that is not",
}
"""What is said of each result that no step can be taken with."""


@pytest.mark.parametrize("result", NOT_FINITE)
@pytest.mark.parametrize(("iterations", "steps"), [(3, "6 of its 6 steps"), (30, "20 steps in a row")])
def test_a_loss_that_is_never_finite_is_named_and_leaves_no_model(case, tmp_path, result, iterations, steps):
    says = (
        rf"fold 0 were not finite in {steps}: the loss 'fixed' .*other 1\.0 .*"
        rf"\({NOT_FINITE[result]}\).*another loss; then move {tmp_path} away"
    )
    with pytest.raises(TrainingError, match=says) as raised:
        train(case, tmp_path, "fixed", iterations, result=result)
    assert "learning_rate" not in str(raised.value)
    assert not (tmp_path / WEIGHTS).exists()


def test_it_is_named_again_when_the_fold_is_resumed(case, tmp_path):
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"fold 0 were not finite in 6 of its 6 steps: .*other 1\.0"):
            train(case, tmp_path, "fixed", result="nan")


def test_a_loss_that_is_not_finite_at_coarse_levels_alone_is_named(case, tmp_path, installed):
    with pytest.raises(TrainingError, match=r"'coarse' .*other 1\.0 .*its total is nan"):
        train(case, tmp_path, "coarse", deep_supervision=True)


def test_logits_that_are_not_finite_are_not_blamed_on_the_loss(case, tmp_path):
    made = learner("fixed", result="nan")
    with torch.no_grad():
        for parameter in made.network.parameters():
            parameter.fill_(3e38)
    assert made.fault_of_loss(*batch()) is None
    assert learner("brier").fault_of_loss(*batch()) is None
    assert learner("dice_ce").fault_of_loss(*batch()) is None


def test_a_part_that_is_not_finite_is_null_and_the_steps_are_taken(case, tmp_path):
    """As is every number that no JSON can hold; the log is read again for the extension, and drawn."""
    train(case, tmp_path, "fixed", result="nan part")
    train(case, tmp_path, "fixed", result="nan part", epochs=None, extend=1)
    text = (tmp_path / METRICS).read_text(encoding="utf-8")
    rows = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["loss_parts"] for row in rows] == [{"bone": None}] * 3
    assert [row["skipped_steps"] for row in rows] == [0, 0, 0]
    assert (load_facts(tmp_path / WEIGHTS)["steps"], len(read_rows(tmp_path))) == (9, 3)


@pytest.mark.parametrize("name", ["dice", "Dice", "loss", "LOSS", "step", "epoch", "gamma", "seconds"])
def test_a_part_that_is_named_like_a_column_is_refused(name):
    says = rf"'named' .*other 1\.0 to name its parts otherwise .*metrics\.jsonl.*found '{name}'; rename"
    with pytest.raises(TrainingError, match=says):
        learner("named", name=name).step(*batch(), 0.02)


@pytest.mark.parametrize("name", ["ce", "dice_loss", "focal", "dice of bone", "foreground"])
def test_other_names_of_parts_are_kept(name):
    assert set(learner("named", name=name).step(*batch(), 0.02).parts) == {name}


def test_every_column_is_reserved(case, tmp_path):
    train(case, tmp_path, "brier", stop_early=3, held_out=[case])
    columns = set(read_rows(tmp_path)[-1]) | {EARLY_STOP, *PART_COLUMNS}
    assert columns - set(PART_COLUMNS) == RESERVED - {"dice"}
