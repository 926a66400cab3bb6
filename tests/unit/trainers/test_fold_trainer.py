import json
import shutil
import signal
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import makers
import numpy as np
import pytest
import torch
from checkpoints import save_import

from autospine.core.errors import FormatError, PlanError, TrainingError
from autospine.data.patches import PatchSource
from autospine.evaluation.held_out import VALIDATION
from autospine.models.imported_weights import load_imported
from autospine.models.manifest import training_of
from autospine.models.model_folder import TRAINED_ON
from autospine.storage.tensors import load_facts, load_tensors, save_tensors
from autospine.storage.trained_models import WEIGHTS
from trainers import fold_trainer, schedule
from trainers.checkpoints import CHECKPOINT, PREVIOUS
from trainers.fold_trainer import FoldTrainer, prepare_fold
from trainers.initial_weights import load_initial_weights
from trainers.learner import StepResult
from trainers.metrics_log import CURVES, EARLY_STOP, MECHANISMS, METRICS
from trainers.schedule import FINAL, LEAST_STEPS, NoTimeLeftError
from trainers.settings import TrainingSettings
from trainers.training_loop import PATIENCE

STEPS = 2
"""Per epoch."""


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    rng = np.random.default_rng(0)
    stored = []
    for name in ("a", "b"):
        indices = makers.column()
        stored.append(makers.store_case(folder, name, indices + rng.normal(0, 0.2, indices.shape), indices))
    return stored


def trainer(
    cases, folder: Path, *, epochs=2, configuration=None, pretrained=None, held_out=(), **settings
) -> FoldTrainer:
    configuration = configuration or makers.configuration(training={"iterations_per_epoch": STEPS})
    plan = makers.plan(configuration)
    initial = None if pretrained is None else load_initial_weights(pretrained, plan, configuration)
    return prepare_fold(
        plan=plan,
        configuration=configuration,
        cases=cases,
        folder=folder,
        name="0",
        settings=TrainingSettings(epochs=epochs, **settings),
        held_out=held_out,
        initial_weights=initial,
    )


def interrupt_at(made: FoldTrainer, number: int) -> None:
    """Let the learner be interrupted in the step of this number, counted from here."""
    take, counted = made.learner.step, iter(range(1, 10**6))

    def step(*arguments) -> StepResult:
        if next(counted) == number:
            raise KeyboardInterrupt
        return take(*arguments)

    made.learner.step = step


def tell_at(made: FoldTrainer, number: int, *signals: signal.Signals) -> None:
    """Let signals arrive in the step of this number."""
    take, counted = made.learner.step, iter(range(1, 10**6))

    def step(*arguments) -> StepResult:
        if next(counted) == number:
            for each in signals:
                signal.raise_signal(each)
        return take(*arguments)

    made.learner.step = step


class Screen:
    """Stands for `progress`, and remembers what it is told."""

    def __init__(self) -> None:
        self.shown, self.counted, self.done, self.ends = [], [], None, None

    def __call__(self, *_, done: float, percent: bool, ends: float | None):
        self.done, self.ends = done, ends
        return nullcontext(self)

    def advance(self, amount: float = 1) -> None:
        self.counted.append(amount)

    def update(self, text: str) -> None:
        self.shown.append(text)


def final(folder: Path) -> dict[str, torch.Tensor]:
    return load_tensors(folder / WEIGHTS)[0]


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def undisturbed(cases, tmp_path_factory):
    """A fold trained for two epochs in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    trainer(cases, folder).run(None)
    return folder


def test_a_trained_fold_leaves_its_weights_and_its_record(undisturbed):
    assert {path.name for path in undisturbed.iterdir()} == {WEIGHTS, METRICS, CURVES, MECHANISMS, TRAINED_ON}
    facts = load_facts(undisturbed / WEIGHTS)
    assert facts["precision"] == "float32"
    assert (facts["fold"], facts["steps"], facts["epochs"]) == ("0", 2 * STEPS, 2)
    assert (facts["seed"], facts["processes"], facts["torch"]) == (0, 1, torch.__version__)
    assert facts["device"].startswith("CPU, ")
    assert facts["minutes"] >= 0
    assert facts["modalities"] == ["CT"]
    kept = rows(undisturbed)
    assert [row["epoch"] for row in kept] == [1, 2]
    assert [row["progress"] for row in kept] == [0.5, 1.0]
    for row in kept:
        assert set(row["pseudo_dice"]) == {"bone", "canal"}
        assert len(row["fusion_weights"]) == 2
        assert len(row["gamma"]) == 4
        assert row["skipped_steps"] == 0


def test_the_file_reference_names_every_fact(cases, tmp_path, undisturbed):
    made = trainer(cases, tmp_path)
    interrupt_at(made, STEPS + 1)
    with pytest.raises(KeyboardInterrupt):
        made.run(None)
    facts = {**load_facts(undisturbed / WEIGHTS), **load_facts(tmp_path / CHECKPOINT)}
    text = (Path(__file__).parents[3] / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    assert [name for name in facts if f"`{name}`" not in text] == []


@pytest.mark.parametrize("interrupted_in", [STEPS + 1, 2 * STEPS])
def test_resumed_training_gives_the_same_weights(cases, tmp_path, undisturbed, interrupted_in):
    """Wherever it was interrupted after the first epoch, it goes on from that epoch's end."""
    first = trainer(cases, tmp_path)
    interrupt_at(first, interrupted_in)
    with pytest.raises(KeyboardInterrupt):
        first.run(None)
    assert (tmp_path / CHECKPOINT).is_file()
    assert not (tmp_path / WEIGHTS).exists()
    trainer(cases, tmp_path).run(None)
    expected, found = final(undisturbed), final(tmp_path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, msg=name)
    assert not (tmp_path / CHECKPOINT).exists()
    losses = [[row["loss"] for row in rows(folder)] for folder in (undisturbed, tmp_path)]
    assert losses[0] == losses[1]


@pytest.fixture
def _terminable():
    """SIGTERM as the command line takes it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_terminable")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("told_in", [1, 2, 3])
def test_told_to_stop_training_finishes_its_step_and_loses_nothing(
    cases, tmp_path, undisturbed, number, told_in
):
    first = trainer(cases, tmp_path)
    tell_at(first, told_in, number)
    with pytest.raises(KeyboardInterrupt):
        first.run(None)
    facts = load_facts(tmp_path / CHECKPOINT)
    assert facts["step"] == told_in
    assert len(facts["begun"]) == told_in % STEPS
    again = trainer(cases, tmp_path)
    tell_at(again, 2 * STEPS - told_in + 1, number)
    again.run(None)
    for name, tensor in final(undisturbed).items():
        torch.testing.assert_close(final(tmp_path)[name], tensor, rtol=0, atol=0, msg=name)
    timeless = [
        [{k: v for k, v in row.items() if "seconds" not in k} for row in rows(folder)]
        for folder in (undisturbed, tmp_path)
    ]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize(("deterministic", "threads"), [(True, 2), (False, 1)])
def test_a_deterministic_training_keeps_the_threads_that_it_began_with(
    cases, tmp_path, monkeypatch, deterministic, threads
):
    first = trainer(cases, tmp_path, deterministic=deterministic, threads=2)
    tell_at(first, STEPS + 1, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        first.run(None)
    assert load_facts(tmp_path / CHECKPOINT)["threads"] == threads
    trainer(cases, tmp_path, deterministic=deterministic, threads=3).run(None)
    assert torch.get_num_threads() == 1
    again = trainer(cases, tmp_path / "other", deterministic=deterministic)
    made = replace(again, state=replace(again.state, threads=2))
    seen = []
    monkeypatch.setattr(made.learner, "step", lambda *_: seen.append(torch.get_num_threads()) or broken())
    with pytest.raises(ZeroDivisionError):
        made.run(None)
    assert seen == [threads]


def broken() -> None:
    raise ZeroDivisionError


def test_the_time_of_a_broken_off_epoch_is_counted(cases, tmp_path):
    first = trainer(cases, tmp_path)
    tell_at(first, STEPS + 1, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        first.run(None)
    facts = load_facts(tmp_path / CHECKPOINT)
    assert (len(facts["begun"]), facts["begun_seconds"] > 0) == (1, True)
    again = trainer(cases, tmp_path)
    interrupted = again.state.partial_epoch
    longer = replace(interrupted, seconds=interrupted.seconds + 1000)
    replace(again, state=replace(again.state, partial_epoch=longer)).run(None)
    slow = [row["seconds"] > 1000 for row in rows(tmp_path)]
    assert slow == [False, True, *[False] * (len(slow) - 2)]


@pytest.mark.usefixtures("_terminable")
def test_told_twice_training_stops_at_once(cases, tmp_path):
    made = trainer(cases, tmp_path)
    tell_at(made, 1, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        made.run(None)
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_damaged_checkpoint_costs_an_epoch(cases, tmp_path, undisturbed):
    first = trainer(cases, tmp_path)
    interrupt_at(first, 2 * STEPS)
    with pytest.raises(KeyboardInterrupt):
        first.run(None)
    (tmp_path / PREVIOUS).write_bytes((tmp_path / CHECKPOINT).read_bytes())
    (tmp_path / CHECKPOINT).write_bytes(b"damaged")
    trainer(cases, tmp_path).run(None)
    for name, tensor in final(undisturbed).items():
        torch.testing.assert_close(final(tmp_path)[name], tensor, rtol=0, atol=0, msg=name)


def test_a_checkpoint_of_the_last_epoch_only_needs_to_be_exported(cases, tmp_path, undisturbed):
    first = trainer(cases, tmp_path)

    def killed():
        raise KeyboardInterrupt

    first.learner.averaged = killed
    with pytest.raises(KeyboardInterrupt):
        first.run(None)
    again = trainer(cases, tmp_path)
    interrupt_at(again, 1)
    again.run(None)
    for name, tensor in final(undisturbed).items():
        torch.testing.assert_close(final(tmp_path)[name], tensor, rtol=0, atol=0, msg=name)
    assert len(rows(tmp_path)) == 2


def test_another_seed_gives_other_weights(cases, tmp_path, undisturbed):
    trainer(cases, tmp_path, epochs=1, seed=1).run(None)
    found, expected = final(tmp_path), final(undisturbed)
    assert not all(torch.equal(found[name], expected[name]) for name in found)


def first_images(made: FoldTrainer) -> torch.Tensor:
    with made.batches(made.clock(None)) as batches:
        return next(batches).images


def test_a_fold_goes_on_and_is_extended_with_the_seed_that_it_began_with(cases, tmp_path):
    source = PatchSource(cases, makers.configuration(), seed=3, cache_bytes=0)
    first = trainer(cases, tmp_path, seed=3)
    interrupt_at(first, STEPS + 1)
    with pytest.raises(KeyboardInterrupt):
        first.run(None)
    with pytest.raises(TrainingError, match="expected --seed 3, with which fold 0 began, found 0"):
        trainer(cases, tmp_path, seed=0)
    again = trainer(cases, tmp_path)
    assert torch.equal(first_images(again), source.batch(STEPS).images)
    again.run(None)
    assert load_facts(tmp_path / WEIGHTS)["seed"] == 3
    assert torch.equal(first_images(extend(cases, tmp_path)), source.batch(2 * STEPS).images)
    other = PatchSource(cases, makers.configuration(), seed=4, cache_bytes=0)
    assert torch.equal(first_images(extend(cases, tmp_path, seed=4)), other.batch(2 * STEPS).images)


def test_weights_of_which_the_seed_is_not_known_are_extended(cases, finished):
    weights, facts = load_tensors(finished / WEIGHTS)
    before = ("fold", "steps", "epochs", "extensions", "weights", "plan", "identity")
    save_tensors(finished / WEIGHTS, weights, {name: facts[name] for name in before})
    extend(cases, finished).run(None)
    assert load_facts(finished / WEIGHTS)["seed"] == 0


def test_trackers_keep_folds_of_different_seeds_apart(cases, tmp_path):
    runs = [trainer(cases, tmp_path, seed=seed).tracked_run().identity for seed in (0, 1, 1)]
    assert len(set(runs)) == 2


def test_time_ends_training_where_no_number_of_epochs_is_asked_for(cases, tmp_path, monkeypatch):
    class Watch:
        """At each look a third of a second has passed."""

        now = 0.0

        def monotonic(self) -> float:
            self.now += 0.3
            return self.now

    monkeypatch.setattr(schedule, "time", Watch())
    trainer(cases, tmp_path, epochs=None).run(0.3 * LEAST_STEPS)
    assert load_facts(tmp_path / WEIGHTS)["steps"] == LEAST_STEPS
    assert rows(tmp_path)[-1]["progress"] == 1.0


def test_a_fold_that_time_allows_hardly_a_step_stays_incomplete(cases, tmp_path):
    with pytest.raises(NoTimeLeftError, match=r"no time is left for fold 0, .*--max-minutes"):
        trainer(cases, tmp_path, epochs=None).run(0.0)
    assert not (tmp_path / WEIGHTS).exists()
    trainer(cases, tmp_path).run(None)
    assert load_facts(tmp_path / WEIGHTS)["steps"] == 2 * STEPS


@pytest.mark.parametrize(("planned", "warned"), [(100_000, True), (30, False)])
def test_a_time_that_is_enough_for_few_steps_is_warned_of(
    cases, tmp_path, caplog, monkeypatch, planned, warned
):
    class Watch:
        """At each look a third of a second has passed."""

        now = 0.0

        def monotonic(self) -> float:
            self.now += 0.3
            return self.now

    monkeypatch.setattr(schedule, "time", Watch())
    recipe = {"iterations_per_epoch": 15, "epochs": planned // 15}
    made = trainer(cases, tmp_path, epochs=None, configuration=makers.configuration(training=recipe))
    made.run(6.0)
    assert (f"about 20 of the {planned // 15 * 15} steps that the plan has" in caplog.text) == warned


def test_a_longer_first_epoch_is_shown_as_it_is_and_ends_when_the_time_does(cases, tmp_path, monkeypatch):
    class Watch:
        """At each look a third of a second has passed."""

        now = 0.0

        def monotonic(self) -> float:
            self.now += 0.3
            return self.now

    screen = Screen()
    monkeypatch.setattr(schedule, "time", Watch())
    monkeypatch.setattr(fold_trainer, "progress", screen)
    recipe = {"iterations_per_epoch": 15, "epochs": 9}
    made = trainer(cases, tmp_path, epochs=None, configuration=makers.configuration(training=recipe))
    began = time.monotonic()
    made.run(5.1)
    assert began + 5.1 <= screen.ends <= time.monotonic() + 5.1
    steps = [text.split("  loss")[0] for text in screen.shown]
    assert steps[14:17] == ["epoch 1  step 15/15", "epoch 1  step 16", "epoch 1  step 17"]
    assert "scoring held-out" in screen.shown[-2]


def test_the_first_steps_are_seen(cases, tmp_path, monkeypatch):
    screen = Screen()
    monkeypatch.setattr(fold_trainer, "progress", screen)
    trainer(cases, tmp_path).run(None)
    shown, counted = screen.shown, screen.counted
    assert shown[0].startswith(f"epoch 1  step 1/{STEPS}  loss ")
    assert "loss" in shown[-1]
    assert "step" not in shown[-1]
    assert screen.ends is None
    assert (screen.done, counted) == (0, pytest.approx([25.0] * 4))


def test_a_fold_that_goes_on_shows_what_was_done_before_apart(cases, tmp_path, monkeypatch):
    first = trainer(cases, tmp_path)
    interrupt_at(first, STEPS + 1)
    with pytest.raises(KeyboardInterrupt):
        first.run(None)
    screen = Screen()
    monkeypatch.setattr(fold_trainer, "progress", screen)
    trainer(cases, tmp_path).run(None)
    assert (screen.done, screen.counted) == (50, pytest.approx([25.0] * 2))


def test_epochs_end_training_before_its_time(cases, tmp_path):
    trainer(cases, tmp_path, epochs=1).run(1000.0)
    assert load_facts(tmp_path / WEIGHTS)["steps"] == STEPS


def test_a_checkpoint_of_another_plan_is_refused(cases, tmp_path):
    first = trainer(cases, tmp_path / "fold_0")
    interrupt_at(first, STEPS + 1)
    with pytest.raises(KeyboardInterrupt):
        first.run(None)
    other = makers.configuration(
        network=makers.network_plan(feature_size=16), training={"iterations_per_epoch": STEPS}
    )
    says = r"checkpoint of the present plan and cases in .*\(changed: .*move .* away"
    with pytest.raises(TrainingError, match=says):
        trainer(cases, tmp_path / "fold_0", configuration=other)
    (tmp_path / "plan.json.old").touch()
    with pytest.raises(TrainingError, match=r"restore what was there \(its plan is .*plan\.json\.old\)"):
        trainer(cases, tmp_path / "fold_0", configuration=other)


# Extensions.


def extend(cases, folder: Path, epochs: int = 1, **settings) -> FoldTrainer:
    return trainer(cases, folder, epochs=None, extend=epochs, **settings)


@pytest.fixture
def finished(undisturbed, tmp_path) -> Path:
    """A copy of a finished fold, with the prediction of a held-out case."""
    folder = Path(shutil.copytree(undisturbed, tmp_path / "fold_0"))
    (folder / VALIDATION).mkdir()
    (folder / VALIDATION / "c.nii.gz").touch()
    return folder


def test_an_extension_trains_further_and_replaces_weights_and_predictions(cases, finished, undisturbed):
    made = extend(cases, finished)
    for name, tensor in final(undisturbed).items():
        assert torch.equal(made.learner.network.state_dict()[name], tensor)
    made.run(None)
    facts = load_facts(finished / WEIGHTS)
    assert (facts["steps"], facts["epochs"], facts["extensions"]) == (3 * STEPS, 3, 1)
    assert facts["identity"] == load_facts(undisturbed / WEIGHTS)["identity"]
    kept = rows(finished)
    assert kept[:2] == rows(undisturbed)
    assert (kept[2]["epoch"], kept[2]["progress"]) == (3, 1.0)
    assert any(not torch.equal(final(finished)[name], t) for name, t in final(undisturbed).items())
    assert not list((finished / VALIDATION).iterdir())
    assert not (finished / CHECKPOINT).exists()


def test_an_extension_has_a_schedule_in_proportion_to_its_length(cases, finished):
    """One epoch after two rises to a third of the planned rate, six after two to three quarters of it."""
    for epochs, share in ((1, 1 / 3), (6, 3 / 4)):
        made = extend(cases, finished, epochs)
        assert made.learning_rate(0.1) == pytest.approx(share * 1e-3)


def test_an_extension_sees_new_patches(cases, finished):
    first = first_images(extend(cases, finished))
    source = PatchSource(cases, makers.configuration(), seed=0, cache_bytes=0)
    assert torch.equal(first, source.batch(2 * STEPS).images)


def test_an_interrupted_extension_leaves_the_finished_weights_and_goes_on(cases, finished, tmp_path):
    whole = Path(shutil.copytree(finished, tmp_path / "whole"))
    extend(cases, whole, 2).run(None)
    before = (finished / WEIGHTS).read_bytes()
    first = extend(cases, finished, 2)
    interrupt_at(first, STEPS + 1)
    with pytest.raises(KeyboardInterrupt):
        first.run(None)
    assert (finished / WEIGHTS).read_bytes() == before
    assert list((finished / VALIDATION).iterdir())
    again = extend(cases, finished, 2)
    interrupt_at(again, STEPS + 1)
    again.run(None)
    for name, tensor in final(whole).items():
        torch.testing.assert_close(final(finished)[name], tensor, rtol=0, atol=0, msg=name)
    assert len(rows(finished)) == 4


def test_a_checkpoint_that_a_finished_training_left_behind_is_not_gone_on_with(cases, finished):
    left = trainer(cases, finished.parent / "other")
    interrupt_at(left, STEPS + 1)
    with pytest.raises(KeyboardInterrupt):
        left.run(None)
    shutil.copy(finished.parent / "other" / CHECKPOINT, finished / CHECKPOINT)
    extend(cases, finished).run(None)
    assert load_facts(finished / WEIGHTS)["steps"] == 3 * STEPS


# Early stopping.

WAITED, FOUND, TOTAL = 3, 5, 7
"""At this rate nothing is learnt: after the warm-up of 2 epochs 3 are waited for, and a quarter is added."""


def stopping(cases, folder: Path, **settings) -> FoldTrainer:
    """A fold of 20 epochs that stops early, unless the settings say otherwise."""
    recipe = {"iterations_per_epoch": STEPS, "learning_rate": 1e-6}
    chosen = {"epochs": 20, "stop_early": WAITED, "deterministic": True, **settings}
    configuration = makers.configuration(training=recipe)
    return trainer(cases[:1], folder, configuration=configuration, held_out=cases[1:], **chosen)


@pytest.fixture(scope="module")
def stopped(cases, tmp_path_factory):
    """A fold that has stopped early, in one go."""
    folder = tmp_path_factory.mktemp("stopped")
    stopping(cases, folder).run(None)
    return folder


def test_a_fold_stops_early_with_a_rate_that_has_fallen_to_its_end(stopped):
    facts, kept = load_facts(stopped / WEIGHTS), rows(stopped)
    assert (facts["stopped_early"], facts["epochs"], facts["steps"]) == (FOUND, TOTAL, TOTAL * STEPS)
    assert [row["epoch"] for row in kept if EARLY_STOP in row] == [FOUND]
    assert [row["progress"] for row in kept] == [0.05, 0.1, 0.15, 0.2, 0.25, 0.625, 1.0]
    assert kept[-1]["learning_rate"] == pytest.approx(FINAL * 1e-6)
    assert all(0 < row["held_out_dice"] < 1 for row in kept)


def test_until_it_stops_early_a_training_is_what_it_is_without(cases, tmp_path):
    """Weights, averages, moments and random numbers after the epoch in which the plateau is found."""
    found = {}
    for waited in (WAITED, None):
        made = stopping(cases, tmp_path / str(waited), stop_early=waited)
        interrupt_at(made, FOUND * STEPS + 1)
        with pytest.raises(KeyboardInterrupt):
            made.run(None)
        found[waited], facts = load_tensors(tmp_path / str(waited) / CHECKPOINT)
        assert (facts["step"], facts["early_stopping"] is None) == (FOUND * STEPS, waited is None)
    with_it, without = found.values()
    # The checks of types draw Python's random numbers.
    assert {name for name in without if not torch.equal(without[name], with_it[name])} <= {"random.python"}


@pytest.mark.usefixtures("_terminable")
@pytest.mark.parametrize(
    ("interrupted_in", "told"), [(2 * STEPS + 1, False), (FOUND * STEPS + 1, True), (TOTAL * STEPS, False)]
)
def test_an_interrupted_fold_stops_early_like_one_that_was_not(
    cases, tmp_path, stopped, interrupted_in, told
):
    """Before the plateau is found, in the cooldown, and in its last step."""
    first = stopping(cases, tmp_path)
    if told:
        tell_at(first, interrupted_in, signal.SIGTERM)
    else:
        interrupt_at(first, interrupted_in)
    with pytest.raises(KeyboardInterrupt):
        first.run(None)
    stopping(cases, tmp_path).run(None)
    for name, tensor in final(stopped).items():
        torch.testing.assert_close(final(tmp_path)[name], tensor, rtol=0, atol=0, msg=name)
    timeless = [
        [{k: v for k, v in row.items() if "seconds" not in k} for row in rows(folder)]
        for folder in (stopped, tmp_path)
    ]
    assert timeless[0] == timeless[1]
    assert load_facts(tmp_path / WEIGHTS)["stopped_early"] == FOUND


def test_without_the_option_the_rest_of_a_cooldown_is_spread_over_the_planned_epochs(cases, tmp_path):
    first = stopping(cases, tmp_path)
    interrupt_at(first, (TOTAL - 1) * STEPS + 1)
    with pytest.raises(KeyboardInterrupt):
        first.run(None)
    stopping(cases, tmp_path, stop_early=None, epochs=8).run(None)
    facts = load_facts(tmp_path / WEIGHTS)
    assert (facts["stopped_early"], facts["epochs"]) == (None, 8)


def test_a_cooldown_takes_as_many_epochs_with_another_number_of_processes(cases, tmp_path):
    first = stopping(cases, tmp_path)
    interrupt_at(first, FOUND * STEPS + 1)
    with pytest.raises(KeyboardInterrupt):
        first.run(None)
    made = stopping(cases, tmp_path)
    assert made.clock(None).cooldown.steps == (TOTAL - FOUND) * STEPS
    of_two = replace(made, state=replace(made.state, processes=2))
    clock = of_two.clock(None)
    assert (clock.cooldown.steps, clock.step) == (2 * (TOTAL - FOUND) * STEPS, FOUND * STEPS)
    fewer = stopping(cases, tmp_path, epochs=TOTAL - 1).clock(None)
    assert (fewer.cooldown, fewer.total_steps) == (None, (TOTAL - 1) * STEPS)


def test_a_fold_that_stopped_early_is_extended_like_any_other(cases, stopped, tmp_path):
    folder = Path(shutil.copytree(stopped, tmp_path / "fold_0"))
    stopping(cases, folder, epochs=None, stop_early=None, extend=1).run(None)
    facts = load_facts(folder / WEIGHTS)
    assert (facts["epochs"], facts["stopped_early"], len(rows(folder))) == (TOTAL + 1, None, TOTAL + 1)


def test_a_fold_that_holds_nothing_out_does_not_stop_early(cases, tmp_path):
    with pytest.raises(TrainingError, match="held-out cases for --stop-early, found none of fold 0; leave"):
        trainer(cases, tmp_path, stop_early=3)
    assert not any(tmp_path.iterdir())


def test_want_of_memory_while_held_out_patches_are_predicted_is_said(cases, tmp_path):
    made = stopping(cases, tmp_path)

    def refuse():
        raise torch.OutOfMemoryError("CUDA")

    made.learner.predicting = refuse
    with pytest.raises(TrainingError, match=r"fold 0 needs more memory than cpu .*--memory"):
        made.run(None)


# Choices of the recipe.


def test_deep_supervision_leaves_no_trace_in_the_finished_network(cases, tmp_path, undisturbed):
    made = trainer(cases, tmp_path, epochs=1, deep_supervision=True)
    made.run(None)
    assert final(tmp_path).keys() == final(undisturbed).keys()


def test_deep_supervision_is_not_changed_on_the_way(cases, tmp_path):
    first = trainer(cases, tmp_path, deep_supervision=True)
    interrupt_at(first, STEPS + 1)
    with pytest.raises(KeyboardInterrupt):
        first.run(None)
    with pytest.raises(TrainingError, match=r"--deep-supervision as when fold 0 began, found it left out"):
        trainer(cases, tmp_path)


# Imported weights.


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Path:
    """Weights of an encoder, as an import leaves them."""
    return save_import(tmp_path_factory.mktemp("imported") / "imported.safetensors", seed=5)


def test_a_fold_begins_from_imported_weights_and_says_so(cases, tmp_path, imported, undisturbed):
    made, weights = trainer(cases, tmp_path, epochs=1, pretrained=imported), load_imported(imported)
    start = made.learner.network.state_dict()
    assert {name.split(".")[0] for name in weights.tensors} == {"embedding", "stages"}
    assert all(torch.equal(start[name], tensor) for name, tensor in weights.tensors.items())
    made.run(None)
    assert load_facts(tmp_path / WEIGHTS)["weights"] == weights.digest
    assert load_facts(undisturbed / WEIGHTS)["weights"] is None


def test_a_fold_that_goes_on_keeps_what_it_has_learnt_from_them(cases, tmp_path, imported):
    trainer(cases, tmp_path / "whole", pretrained=imported).run(None)
    first = trainer(cases, tmp_path / "parts", pretrained=imported)
    interrupt_at(first, STEPS + 1)
    with pytest.raises(KeyboardInterrupt):
        first.run(None)
    trainer(cases, tmp_path / "parts", pretrained=imported).run(None)
    expected, found = final(tmp_path / "whole"), final(tmp_path / "parts")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_fold_that_began_otherwise_is_not_gone_on_with(cases, tmp_path, imported):
    first = trainer(cases, tmp_path / "fold_0", pretrained=imported)
    interrupt_at(first, STEPS + 1)
    with pytest.raises(KeyboardInterrupt):
        first.run(None)
    others = save_import(tmp_path / "others.safetensors", seed=6)
    for weights in (None, others):
        with pytest.raises(
            TrainingError, match=r"the present --pretrained .* found fold 0 begun from others"
        ):
            trainer(cases, tmp_path / "fold_0", pretrained=weights)


def test_weights_of_another_network_or_none_at_all_are_refused(cases, tmp_path):
    other = save_import(tmp_path / "other.safetensors", 5, network=makers.network_plan(feature_size=16))
    with pytest.raises(
        PlanError, match=r"'fullres' in .* found some for another.* import-weights theirs\.pt"
    ):
        trainer(cases, tmp_path / "fold_0", pretrained=other)
    save_tensors(tmp_path / "model.safetensors", {"a": torch.ones(1)}, {"fold": "0"})
    (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
    for name in ("model", "damaged", "absent"):
        with pytest.raises(FormatError, match=r"model import-weights` has written"):
            trainer(cases, tmp_path / "fold_0", pretrained=tmp_path / f"{name}.safetensors")
    assert not (tmp_path / "fold_0").exists()


def test_a_damaged_checkpoint_is_refused(cases, tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b"damaged")
    with pytest.raises(FormatError, match=CHECKPOINT):
        trainer(cases, tmp_path)


def test_gradients_that_stay_infinite_end_training(cases, tmp_path):
    made = trainer(cases, tmp_path, iterations=PATIENCE)
    nothing = StepResult(loss=float("nan"), parts={"ce": float("nan")}, finite=False)
    made.learner.step = lambda *_: nothing
    with pytest.raises(TrainingError, match=f"fold 0 were not finite in {PATIENCE} steps.*learning_rate"):
        made.run(None)
    assert not (tmp_path / WEIGHTS).exists()


def skip_all_but(made: FoldTrainer, *numbers: int) -> None:
    """Let the steps with other numbers, counted from 0, have a loss that is not finite."""
    take, counted = made.learner.step, iter(range(10**6))
    nothing = StepResult(loss=float("nan"), parts={"ce": float("nan")}, finite=False)
    made.learner.step = lambda *words: take(*words) if next(counted) in numbers else nothing


@pytest.mark.parametrize(("iterations", "taken"), [(1, ()), (3, ()), (11, (4,)), (20, (9, 20, 35))])
def test_a_short_training_that_takes_hardly_any_step_leaves_no_model(cases, tmp_path, iterations, taken):
    made, total = trainer(cases, tmp_path, iterations=iterations), 2 * iterations
    skip_all_but(made, *taken)
    says = f"fold 0 were not finite in {total - len(taken)} of its {total} steps.*away.*learning_rate"
    with pytest.raises(TrainingError, match=says):
        made.run(None)
    assert not (tmp_path / WEIGHTS).exists()


@pytest.mark.parametrize(("taken", "warned"), [((0,), True), ((0, 5), True), ((1, 3, 5), False)])
def test_steps_that_were_not_taken_are_kept_with_the_weights(cases, tmp_path, caplog, taken, warned):
    made = trainer(cases, tmp_path, iterations=3)
    skip_all_but(made, *taken)
    made.run(None)
    facts = load_facts(tmp_path / WEIGHTS)
    assert (facts["steps"], facts["skipped_steps"]) == (6, 6 - len(taken))
    assert training_of(tmp_path / WEIGHTS).steps == len(taken)
    assert (f"fold 0: only {len(taken)} of its 6 steps were taken" in caplog.text) == warned
    trainer(cases, tmp_path, epochs=None, iterations=3, extend=1).run(None)
    assert training_of(tmp_path / WEIGHTS).steps == len(taken) + 3


def test_an_extension_that_takes_no_step_keeps_the_finished_weights(cases, tmp_path):
    trainer(cases, tmp_path).run(None)
    before = final(tmp_path)
    made = trainer(cases, tmp_path, epochs=None, extend=1)
    skip_all_but(made)
    with pytest.raises(TrainingError, match=f"{STEPS} of its {STEPS} steps"):
        made.run(None)
    assert all(torch.equal(before[name], tensor) for name, tensor in final(tmp_path).items())


def test_steps_before_an_interruption_count_as_taken(cases, tmp_path, caplog):
    first = trainer(cases, tmp_path)
    interrupt_at(first, 2 * STEPS)
    with pytest.raises(KeyboardInterrupt):
        first.run(None)
    made = trainer(cases, tmp_path)
    skip_all_but(made)
    made.run(None)
    assert training_of(tmp_path / WEIGHTS).steps == STEPS
    assert "steps were taken" not in caplog.text


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate"), MemoryError()],
)
def test_want_of_memory_is_said_and_how_to_mend_it(cases, tmp_path, error):
    made = trainer(cases, tmp_path)

    def refuse(*_):
        raise error

    made.learner.step = refuse
    with pytest.raises(TrainingError, match=r"training step of fold 0 needs more memory than cpu .*--memory"):
        made.run(None)


def test_a_training_says_how_long_it_takes(cases, tmp_path, caplog):
    caplog.set_level("INFO")
    configuration = makers.configuration(training={"iterations_per_epoch": 11})
    trainer(cases, tmp_path, epochs=1, configuration=configuration).run(None)
    (said,) = (text for text in caplog.messages if "a step takes" in text)
    assert "and the 1 that are left about" in said


def full_at(made: FoldTrainer, *numbers: int, unless_recomputed: bool = True) -> None:
    """Let the GPU be full in the steps of these numbers, as long as nothing is recomputed."""
    take, counted = made.learner.step, iter(range(1, 10**6))

    def step(*arguments) -> StepResult:
        recomputed = unless_recomputed and made.learner.network.checkpointing
        if next(counted) in numbers and not recomputed:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return take(*arguments)

    made.learner.step = step


@pytest.mark.parametrize("number", [1, 3])
def test_a_full_gpu_is_answered_by_recomputing(cases, tmp_path, undisturbed, caplog, number):
    made = trainer(cases, tmp_path)
    full_at(made, number)
    made.run(None)
    assert made.learner.network.checkpointing
    assert caplog.text.count("fold 0 goes on with checkpointing") == 1
    for name, tensor in final(undisturbed).items():
        torch.testing.assert_close(final(tmp_path)[name], tensor, atol=1e-5, rtol=1e-4)


def test_a_gpu_that_is_full_even_so_is_said(cases, tmp_path):
    made = trainer(cases, tmp_path)
    full_at(made, *range(1, 9), unless_recomputed=False)
    with pytest.raises(TrainingError, match=r"needs more memory than cpu .*--memory or with --checkpointing"):
        made.run(None)


def test_want_of_memory_while_patches_are_made_is_said_too(cases, tmp_path, monkeypatch):
    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr(PatchSource, "batch", refuse)
    with pytest.raises(TrainingError, match=r"training step of fold 0 needs more memory than cpu .*--memory"):
        trainer(cases, tmp_path).run(None)


def test_another_fault_in_a_step_is_left_as_it_is(cases, tmp_path):
    made = trainer(cases, tmp_path)

    def fail(*_):
        raise RuntimeError("shapes")

    made.learner.step = fail
    with pytest.raises(RuntimeError, match="shapes"):
        made.run(None)


def test_a_case_that_cannot_be_read_is_named(tmp_path):
    indices = makers.column()
    case = makers.store_case(tmp_path / "stored", "broken", indices.astype(float), indices)
    (tmp_path / "stored" / "broken_image.b2nd").write_bytes(b"damaged")
    with pytest.raises(FormatError, match="case broken"):
        trainer([case], tmp_path / "fold_0").run(None)
