import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from autospine.core.errors import EvaluationError
from autospine.core.geometry import IDENTITY, Grid
from autospine.core.labels import parse_labels
from autospine.core.types import Modality
from autospine.dataset.raw import Case
from autospine.evaluation.evaluate_maps import evaluate_case, evaluate_folder
from autospine.evaluation.export import (
    MEANS_COLUMNS,
    long_table,
    means_table,
    table_columns,
    write_evaluation,
)
from autospine.evaluation.metrics import find_metrics
from autospine.evaluation.overlap import Counts
from autospine.evaluation.score_description import describe_evaluation
from autospine.evaluation.scores import (
    CaseScores,
    Evaluation,
    Scores,
    mean_scores,
    spread_of,
)
from autospine.evaluation.statistics_files import read_statistics
from autospine.io.images import write_array

LABELS = parse_labels({"background": 0, "vertebra": 20, "disc": 120})
SHAPE = (4, 5, 6)
REVERSED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)


def grid(
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0), direction: tuple[float, ...] = IDENTITY
) -> Grid:
    return Grid(shape=SHAPE, spacing_mm=(3.0, 1.0, 0.5), origin_mm=origin, direction=direction)  # type: ignore[arg-type]


def volume(vertebra: int, disc: int = 0) -> np.ndarray:
    """The first voxels are vertebra, the last are disc."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels.reshape(-1)[:vertebra] = 20
    if disc:
        labels.reshape(-1)[-disc:] = 120
    return labels


def case(name: str, modality: Modality | None, site: str | None) -> Case:
    return Case(name=name, images=(), labels=None, modality=modality, site=site, subject=name)


def scores(name: str, *counts: tuple[int, int, int], modality: Modality | None = None) -> CaseScores:
    made = tuple(Counts(tp=tp, fp=fp, fn=fn) for tp, fp, fn in counts)
    return CaseScores(case=name, classes=LABELS.names, counts=made, modality=modality)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    write_array(references / "one.nii.gz", volume(10, 4), grid())
    write_array(predictions / "one.nii.gz", volume(20, 4), grid())
    write_array(references / "two.nii.gz", volume(10), grid())
    write_array(predictions / "two.mha", volume(5), grid())
    write_array(references / "three.nrrd", volume(10), grid())
    write_array(predictions / "four.nii.gz", volume(10), grid())
    (predictions / "plan.json").write_text("{}")
    return predictions, references


def test_case_over_its_classes() -> None:
    prediction, reference = LABELS.encode(volume(20, 4)), LABELS.encode(volume(10, 4))
    found = evaluate_case(prediction, reference, LABELS, case="one", modality="CT", site="here")
    assert found.by_class["vertebra"].dice == pytest.approx(2 / 3)
    assert found.mean.dice == pytest.approx((2 / 3 + 1) / 2)
    assert (found.modality, found.site, found.mean.n) == ("CT", "here", 2)


def test_case_names_itself_in_errors() -> None:
    with pytest.raises(EvaluationError, match=r"case one: .*stored indices"):
        evaluate_case(volume(1), volume(1), LABELS, case="one")


def test_means_are_over_classes_of_means_over_cases() -> None:
    evaluation = Evaluation(
        classes=LABELS.names,
        cases=(
            scores("a", (1, 0, 0), (0, 0, 4), modality="CT"),
            scores("b", (0, 1, 1), (0, 0, 0), modality="CT"),
            scores("c", (0, 3, 0), (0, 0, 0), modality="MR"),
        ),
    )
    assert evaluation.total.by_class["vertebra"].dice == pytest.approx(1 / 3)
    assert evaluation.total.by_class["disc"].n == 1
    assert evaluation.mean_dice == pytest.approx((1 / 3 + 0) / 2)
    assert evaluation.mean_recall == pytest.approx((1 / 2 + 0) / 2)
    groups = evaluation.by_modality
    assert groups["CT"].mean.dice == pytest.approx((1 / 2 + 0) / 2)
    assert groups["MR"].mean.n == 1
    assert math.isnan(groups["MR"].mean.recall)
    assert evaluation.by_site == {}
    assert evaluation.by_case["a"].dice == pytest.approx(0.5)


def test_means_leave_out_what_is_undefined() -> None:
    nan = math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean = mean_scores(
            [
                Scores(values={"dice": 0.5, "iou": 0.25, "recall": nan}, n=1),
                Scores(values={"dice": nan, "iou": nan, "recall": nan}, n=0),
                Scores(values={"dice": 1.0, "iou": 0.75, "recall": 0.5}, n=1),
            ]
        )
        nothing = mean_scores([])
    assert mean == Scores(values={"dice": 0.75, "iou": 0.5, "recall": 0.5}, n=2)
    assert nothing.n == 0
    assert math.isnan(nothing.dice)
    assert math.isnan(nothing.recall)


def test_folders_are_matched_by_name(folders: tuple[Path, Path]) -> None:
    known = [case("one", "CT", "north"), case("two", "MR", "north"), case("elsewhere", "MR", "south")]
    evaluation = evaluate_folder(*folders, LABELS, known)
    assert [c.case for c in evaluation.cases] == ["one", "two"]
    assert evaluation.missing == ("three",)
    assert evaluation.extra == ("four",)
    assert list(evaluation.by_modality) == ["CT", "MR"]
    assert evaluation.by_site["north"].cases == 2
    assert evaluation.total.by_class["vertebra"].dice == pytest.approx(2 / 3)
    assert evaluation.total.by_class["disc"].dice == 1


def test_orientation_of_the_files_does_not_matter(tmp_path: Path) -> None:
    labels = volume(7, 3)
    write_array(tmp_path / "references" / "a.nii.gz", labels, grid())
    turned = grid((2.5, 4.0, 0.0), REVERSED)
    write_array(tmp_path / "predictions" / "a.nii.gz", np.ascontiguousarray(labels[:, ::-1, ::-1]), turned)
    assert evaluate_folder(tmp_path / "predictions", tmp_path / "references", LABELS).mean_dice == 1


@pytest.mark.parametrize(
    ("labels", "where", "message"),
    [
        (volume(10), (0.0, 0.0, 0.2), "case one.*0.2 mm apart"),
        (volume(10)[1:], (0.0, 0.0, 0.0), "case one.*3x5x6 against 4x5x6 voxels"),
        (volume(10) + 1, (0.0, 0.0, 0.0), r"case one.*one\.nii\.gz.*expected labels among"),
    ],
)
def test_pairs_that_do_not_fit(
    folders: tuple[Path, Path], labels: np.ndarray, where: tuple[float, float, float], message: str
) -> None:
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    bad = Grid(shape=shape, spacing_mm=(3.0, 1.0, 0.5), origin_mm=where, direction=IDENTITY)
    write_array(folders[0] / "one.nii.gz", labels, bad)
    with pytest.raises(EvaluationError, match=message):
        evaluate_folder(*folders, LABELS)


def test_every_pair_that_does_not_fit_is_named(folders: tuple[Path, Path]) -> None:
    write_array(folders[0] / "one.nii.gz", volume(10), grid((0.0, 0.0, 0.2)))
    (folders[0] / "two.mha").write_bytes(b"no image")
    with pytest.raises(
        EvaluationError, match=r"2 pairs .* found 2 that cannot: .*case one.*; case two, file"
    ):
        evaluate_folder(*folders, LABELS)


def test_folders_that_do_not_fit(folders: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, references = folders
    with pytest.raises(EvaluationError, match="expected a folder of predictions"):
        evaluate_folder(tmp_path / "nowhere", references, LABELS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationError, match="expected label maps"):
        evaluate_folder(predictions, tmp_path / "empty", LABELS)
    write_array(tmp_path / "others" / "x.nii.gz", volume(1), grid())
    with pytest.raises(EvaluationError, match="expected predictions named as the references"):
        evaluate_folder(tmp_path / "others", references, LABELS)
    write_array(predictions / "one.mha", volume(1), grid())
    with pytest.raises(EvaluationError, match="expected one file for case one"):
        evaluate_folder(predictions, references, LABELS)


def test_files_say_what_the_evaluation_says(folders: tuple[Path, Path], tmp_path: Path) -> None:
    evaluation = evaluate_folder(*folders, LABELS, [case("one", "CT", None)])
    write_evaluation(evaluation, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "evaluation.csv")
    assert tuple(table.columns) == table_columns()
    expected = long_table(evaluation).assign(site=math.nan)
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)
    assert table.groupby("class")["dice"].mean().mean() == pytest.approx(evaluation.mean_dice)
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert written == {**describe_evaluation(evaluation), "compared": None}
    assert written["mean_dice"] == pytest.approx(evaluation.mean_dice, abs=1e-6)
    assert written["cases"]["two"]["classes"]["disc"] == {"dice": None, "iou": None, "recall": None}
    assert written["classes"]["disc"]["n_cases"] == 1
    assert written["missing"] == ["three"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "confusion.csv",
        "evaluation.csv",
        "evaluation.json",
        "evaluation_means.csv",
    ]
    rows = pd.read_csv(tmp_path / "out" / "confusion.csv").set_index(["class", "called"])
    for each in evaluation.namings:
        for other, count in each.called.items():
            assert rows.loc[(each.name, other), "called_voxels"] == count
            assert rows.loc[(each.name, other), "found"] == pytest.approx(each.found, abs=1e-6)


def test_confusions_are_shares_of_the_reference_over_all_cases() -> None:
    true, wrong = volume(20, 10), volume(20)
    wrong[true == 120] = 20
    found = [
        evaluate_case(LABELS.encode(each), LABELS.encode(true), LABELS, case=name)
        for name, each in (("right", true), ("wrong", wrong), ("empty", volume(0)))
    ]
    evaluation = Evaluation(classes=LABELS.names, cases=tuple(found))
    third = pytest.approx(1 / 3)
    assert {each.name: each.shares for each in evaluation.namings} == {
        "vertebra": {"background": third, "vertebra": pytest.approx(2 / 3)},
        "disc": {"background": third, "vertebra": third, "disc": third},
    }
    assert describe_evaluation(evaluation)["confusion"]["disc"]["vertebra"] == 0.333333
    assert describe_evaluation(evaluation)["found"]["disc"] == {
        "share": 0.666667,
        "called": {"vertebra": 0.5, "disc": 0.5},
    }
    assert Evaluation(classes=LABELS.names, cases=()).namings == ()


def test_the_spread_is_that_of_the_cases_and_the_worst_has_its_name() -> None:
    made = (
        scores("a", (9, 1, 1), (0, 0, 0)),
        scores("b", (5, 5, 5), (2, 1, 1)),
        scores("c", (7, 3, 3), (0, 0, 0)),
    )
    evaluation = Evaluation(classes=LABELS.names, cases=made)
    dice, _, _ = evaluation.metrics
    vertebra, disc = evaluation.class_spreads(dice).values()
    assert vertebra.deviation == pytest.approx(np.std([0.9, 0.5, 0.7], ddof=1))
    assert (vertebra.worst, vertebra.case) == (0.5, "b")
    assert math.isnan(disc.deviation)
    assert (disc.worst, disc.case) == (pytest.approx(2 / 3), "b")
    assert evaluation.spread(dice).case == "b"
    described = describe_evaluation(evaluation)
    mean = described["spread"]["mean"]["dice"]
    low, high = mean.pop("interval")
    assert low < evaluation.mean_dice < high
    assert mean == {"sd": 0.16015, "worst": 0.583333, "case": "b"}
    assert described["spread"]["classes"]["disc"]["recall"] == {
        "interval": None,
        "sd": None,
        "worst": 0.666667,
        "case": "b",
    }
    grouped = describe_evaluation(replace(evaluation, cases=tuple(replace(c, modality="CT") for c in made)))
    assert grouped["spread"]["modalities"]["CT"] == grouped["spread"]["mean"]
    assert (grouped["spread"]["sites"], grouped["spread"]["foreground"]) == ({}, None)
    (distance,) = find_metrics(["hd95"])
    assert spread_of({"near": 1.0, "far": 9.0}, distance).case == "far"
    assert spread_of({"none": math.nan}, dice).case is None


def test_intervals_are_those_of_subjects_and_of_the_mean_over_classes() -> None:
    made = (scores("a", (1, 0, 0), (0, 0, 0)), scores("b", (1, 1, 1), (2, 1, 1)))
    evaluation = Evaluation(classes=LABELS.names, cases=made)
    dice, *_ = evaluation.metrics
    third = pytest.approx(2 / 3)
    assert evaluation.class_spreads(dice)["vertebra"].interval == (0.5, 1)
    assert math.isnan(evaluation.class_spreads(dice)["disc"].interval.low)
    assert evaluation.spread(dice).interval == (
        pytest.approx((0.5 + 2 / 3) / 2),
        pytest.approx((1 + 2 / 3) / 2),
    )
    assert evaluation.total.by_class["disc"].dice == third
    one = replace(evaluation, cases=tuple(replace(each, subject="one") for each in made))
    assert math.isnan(one.spread(dice).interval.low)


def test_every_mean_has_a_row_with_its_interval(folders: tuple[Path, Path], tmp_path: Path) -> None:
    known = [case("one", "CT", "here"), case("two", "MR", "here")]
    evaluation = evaluate_folder(*folders, LABELS, known)
    write_evaluation(evaluation, tmp_path)
    table = pd.read_csv(tmp_path / "evaluation_means.csv")
    assert tuple(table.columns) == MEANS_COLUMNS
    pd.testing.assert_frame_equal(table, means_table(evaluation), check_dtype=False)
    assert table.groupby(["group", "of"]).size().to_dict() == {
        **{("all", of): 3 * n for of, n in (("class", 2), ("mean", 1), ("foreground", 1))},
        **{("site", of): 3 * n for of, n in (("class", 2), ("mean", 1), ("foreground", 1))},
        **{("modality", of): 6 * n for of, n in (("class", 2), ("mean", 1), ("foreground", 1))},
    }
    row = table[(table["group"] == "all") & (table["class"] == "vertebra") & (table["metric"] == "recall")]
    assert row[["n_cases", "mean", "low", "high", "worst", "worst_case"]].values.tolist() == [
        [2, 0.75, 0.5, 1.0, 0.5, "two"]
    ]


def test_predictions_are_measured_with_the_intensities_of_their_images(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """Where an image is known and lies on the grid of the label map."""
    image = np.arange(volume(0).size, dtype=np.float32).reshape(SHAPE)
    write_array(tmp_path / "one_0000.nii.gz", image, grid())
    write_array(tmp_path / "two_0000.nii.gz", image, grid((50.0, 0.0, 0.0)))
    known = [
        replace(case(name, "CT", None), images=(tmp_path / f"{name}_0000.nii.gz",)) for name in ("one", "two")
    ]
    evaluation = evaluate_folder(*folders, LABELS, known, with_statistics=True)
    write_evaluation(evaluation, tmp_path / "out")
    found = read_statistics(tmp_path / "out")
    vertebra, disc = found["one"]
    assert (vertebra.voxels, vertebra.components, vertebra.touches_border) == (20, 1, True)
    assert vertebra.ml == pytest.approx(20 * 1.5 / 1000)
    assert vertebra.mean_intensity == pytest.approx(np.arange(20).mean())
    assert disc.mean_intensity == pytest.approx(image.reshape(-1)[-4:].mean())
    assert [each.mean_intensity for each in found["two"]] == [None, None]
    assert set(found) == {"one", "two"}


def test_nothing_defined_is_null_without_a_warning(tmp_path: Path) -> None:
    evaluation = Evaluation(classes=LABELS.names, cases=(scores("a", (0, 0, 0), (0, 0, 0)),))
    assert math.isnan(evaluation.mean_dice)
    write_evaluation(evaluation, tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))["mean_dice"] is None


def test_chosen_metrics_are_columns_keys_and_means(folders: tuple[Path, Path], tmp_path: Path) -> None:
    known = [case("one", "CT", "here"), case("two", "MR", "there")]
    chosen = evaluate_folder(*folders, LABELS, known, find_metrics(["hd95", "recall", "nsd_1mm"]))
    write_evaluation(chosen, tmp_path)
    table = pd.read_csv(tmp_path / "evaluation.csv")
    assert list(table.columns[4:]) == ["hd95", "recall", "nsd_1mm", "tp", "fp", "fn"]
    written = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert {key for key in written if key.startswith("mean_")} == {"mean_hd95", "mean_recall", "mean_nsd_1mm"}
    assert list(written["cases"]["two"]["classes"]["disc"]) == ["hd95", "recall", "nsd_1mm"]
    assert written["cases"]["two"]["classes"]["disc"]["nsd_1mm"] is None
    assert written["classes"]["vertebra"]["n_cases"] == 2
    assert written["cases"]["one"]["mean_hd95"] == written["modalities"]["CT"]["mean_hd95"]
    of_vertebrae = table.loc[table["class"] == "vertebra", "hd95"]
    assert written["classes"]["vertebra"]["hd95"] == pytest.approx(of_vertebrae.mean())
    assert written["mean_recall"] == pytest.approx(evaluate_folder(*folders, LABELS).mean_recall, abs=1e-6)


def test_masks_are_measured_in_mm_and_without_ignored_voxels() -> None:
    labels = parse_labels({"background": 0, "a": 1, "ignore": 2})
    reference, prediction = np.zeros((2, 9, 9, 9), dtype=np.uint8)
    reference[2, 4, 4] = prediction[2, 4, 4] = prediction[7, 4, 4] = 1
    stored, true = labels.encode(prediction), labels.encode(reference)
    chosen = find_metrics(["hd95"])

    def measured(spacing_mm: tuple[float, float, float] | None) -> float:
        found = evaluate_case(stored, true, labels, case="one", metrics=chosen, spacing_mm=spacing_mm)
        return found.mean.values["hd95"]

    assert measured((3.0, 1.0, 1.0)) == 15
    with pytest.raises(EvaluationError, match=r"case one.*hd95.*spacing_mm"):
        measured(None)
    true[7] = labels.encode(np.full((1, 1, 1), 2))[0, 0, 0]
    assert measured((3.0, 1.0, 1.0)) == 0


def test_a_metric_that_fails_names_itself_and_the_case() -> None:
    broken = replace(find_metrics(["hd95"])[0], name="broken", from_pair=lambda _: -1.0, origin="other 1.0")
    indices = LABELS.encode(volume(3))
    with pytest.raises(EvaluationError, match=r"case one.*from 0 to inf.*broken of other 1\.0.*-1"):
        evaluate_case(indices, indices, LABELS, case="one", metrics=[broken], spacing_mm=(1.0, 1.0, 1.0))
