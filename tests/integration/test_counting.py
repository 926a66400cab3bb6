"""Predictions whose vertebrae a second model counts: what the networks make of an image is given here."""

import json
import logging
from pathlib import Path

import makers
import numpy as np
import pytest
import torch

from autospine.cli import main
from autospine.core.labels import LabelSpace, parse_labels
from autospine.core.types import LabelArray
from autospine.dataset.raw import Case, Dataset
from autospine.evaluation.held_out import HeldOut, score_held_out
from autospine.evaluation.postprocessing import NamingEffect, Postprocessing, read_postprocessing
from autospine.inference.predictor import Predictor
from autospine.io.images import read_labels, write_array
from autospine.models.model_folder import open_model
from autospine.prediction.case_log import read_record
from autospine.prediction.vertebra_counter import choose_counter, opened_namers
from autospine.prediction.vertebra_naming import VertebraNaming
from autospine.storage.serialization import write_json
from autospine.storage.trained_models import STARTER_FILE

pytestmark = pytest.mark.skipif(not STARTER_FILE.is_file(), reason="no starter")

FIVE = parse_labels({"background": 0, **{f"L{n}": n for n in range(1, 6)}})
TRUE = (0, 0, 1, 2, 3, 4, 5, 0)
"""T11, T12, L1 to L5 and the sacrum from the head down, as a dataset of five levels labels them."""
SHIFTED = (0, 0, 2, 3, 4, 5, 0, 0)
"""The same by a network that misses L5 and is off by one."""
MENDED = (0, 0, 1, 2, 3, 4, 0, 0)
"""The same after counting; what has no label gets none."""
COUNTED = (1, 1, 1, 1, 1, 1, 1, 4)
"""The same by the starter: vertebra and sacrum."""


def column(values: tuple[int, ...]) -> LabelArray:
    """Bodies one below the other with these labels, the first at the head, and the larger sacrum."""
    labels = np.zeros((36 * len(values) + 4, 48, 50), dtype=np.uint8)
    for place, value in enumerate(reversed(values)):
        labels[4 + 36 * place : 30 + 36 * place, 4:36, 4:46] = value
    labels[2:30, 4:46, 2:48] = values[-1]
    return labels


@pytest.fixture
def model(tmp_path: Path) -> Path:
    makers.write_model(tmp_path / "levels", labels=FIVE)
    return tmp_path / "levels"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    shape = column(TRUE).shape
    array = np.random.default_rng(0).integers(0, 500, shape).astype(np.int16)
    write_array(tmp_path / "images" / "a_0000.nii.gz", array, makers.grid(shape))
    return tmp_path / "images"


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's networks miscount, and those of the starter see all vertebrae."""

    def predict(self: Predictor, volume: object, modality: str, description: str, *_: object) -> LabelArray:
        return column(COUNTED if description == "counting vertebrae" else SHIFTED)

    monkeypatch.setattr(Predictor, "predict", predict)


def predicted(model: Path, image: Path, out: Path, *words: str) -> tuple[int, ...]:
    """The labels that `predict` gives the column from the head down."""
    common = ("predict", "-i", str(image), "-o", str(out), "-m", str(model), "--device", "cpu", "--no-report")
    assert main([*common, *words]) == 0
    found = read_labels(out / "a.nii.gz").array[0]
    return tuple(int(found[16 + 36 * place, 20, 20]) for place in reversed(range(len(TRUE))))


def test_a_model_that_counts_vertebrae_takes_a_shift_back(model: Path, image: Path, tmp_path: Path) -> None:
    assert predicted(model, image, tmp_path / "plain") == SHIFTED
    assert read_record(tmp_path / "plain")["a"].counted_with is None
    out = tmp_path / "counted"
    assert predicted(model, image, out, "--count-with", "starter") == MENDED
    entry = read_record(out)["a"]
    assert entry.counted_with == "starter"
    assert {(each.from_label, each.to_label) for each in entry.renamed} == {
        (f"L{n + 1}", f"L{n}") for n in range(1, 5)
    }
    names = json.loads((out / "a_vertebrae.json").read_text(encoding="utf-8"))
    assert [each["level"] for each in names["vertebrae"]][-6:] == ["L1", "L2", "L3", "L4", "L5", "sacrum"]


@pytest.mark.parametrize(("counted", "counts"), [(0.9, True), (0.7, False), (None, False)])
def test_the_starter_counts_by_itself_where_held_out_cases_gained(
    model: Path, image: Path, tmp_path: Path, counted: float | None, counts: bool
) -> None:
    effect = NamingEffect(dice_before=0.7, dice_after=0.6, dice_counted=counted)
    write_json(
        model / "postprocessing.json",
        Postprocessing(format_version=6, n_cases=1, classes=(), naming=effect),
    )
    expected = MENDED if counts else SHIFTED
    assert predicted(model, image, tmp_path / "out") == expected
    assert read_record(tmp_path / "out")["a"].counted_with == ("starter" if counts else None)
    assert predicted(model, image, tmp_path / "none", "--count-with", "none") == SHIFTED
    assert not (tmp_path / "none" / "a_vertebrae.json").exists()  # names alone cost held-out cases Dice
    assert predicted(model, image, tmp_path / "asked", "--count-with", "starter") == MENDED


def test_an_installation_without_the_starter_says_that_it_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    effect = NamingEffect(dice_before=0.7, dice_after=0.8, dice_counted=0.9)
    chosen = Postprocessing(format_version=6, n_cases=1, classes=(), naming=effect)
    monkeypatch.setattr("autospine.prediction.vertebra_counter.STARTER_FILE", tmp_path / "none")
    assert choose_counter(None, chosen, named=True) is None
    assert "this installation lacks it" in caplog.text


@pytest.mark.parametrize(
    ("labels", "counting", "says"),
    [
        (
            {"vertebra": 1},
            "starter",
            "expected a model whose classes are levels to count vertebrae by starter",
        ),
        (None, "levels", "expected a class `vertebra` for all vertebrae in"),
        (None, "nowhere", "expected"),
    ],
)
def test_models_that_cannot_count_are_refused_before_the_first_case(
    image: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    labels: dict[str, int] | None,
    counting,
    says,
) -> None:
    space: LabelSpace = FIVE if labels is None else parse_labels({"background": 0, **labels})
    makers.write_model(tmp_path / "model", labels=space)
    makers.write_model(tmp_path / "levels", labels=FIVE)
    name = counting if counting == "starter" else str(tmp_path / counting)
    words = [
        "-i",
        str(image),
        "-o",
        str(tmp_path / "out"),
        "-m",
        str(tmp_path / "model"),
        "--count-with",
        name,
    ]
    assert main(["predict", *words]) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out" / "a.nii.gz").exists()


def test_cross_validation_tries_whether_counting_helps(
    model: Path, image: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="autospine")
    grid = makers.grid(column(TRUE).shape)
    write_array(tmp_path / "labelsTr" / "a.nii.gz", column(TRUE), grid)
    write_array(tmp_path / "validation" / "a.nii.gz", column(SHIFTED), grid)
    case = Case(
        name="a",
        images=(image / "a_0000.nii.gz",),
        labels=tmp_path / "labelsTr" / "a.nii.gz",
        modality="MR",
        site=None,
        subject="a",
    )
    dataset = Dataset(
        folder=tmp_path,
        name="Dataset001_Columns",
        channels=("MR",),
        labels=FIVE,
        cases=(case,),
        test_cases=(),
        file_ending=".nii.gz",
    )
    held_out = HeldOut(fold="0", cases=("a",), folder=tmp_path / "validation")
    naming = VertebraNaming.of_labels(open_model(model).plan.labels)
    with opened_namers(naming, dataset.cases, 1, torch.device("cpu")) as namers:
        score_held_out(tmp_path, [held_out], dataset, FIVE, *namers)
    chosen = read_postprocessing(tmp_path)
    assert chosen is not None and chosen.naming is not None
    assert chosen.naming.dice_after == 0.0
    assert chosen.naming.dice_counted == pytest.approx(0.8)
    assert chosen.naming.counts and not chosen.naming.harms
    assert "0.800 if the starter counts: predictions are named and counted" in caplog.text
    assert choose_counter(None, chosen, named=True) == "starter"
    assert choose_counter(None, chosen, named=False) is None
    with opened_namers(naming, dataset.cases, 2, torch.device("cpu")) as namers:
        assert namers.counting is None
