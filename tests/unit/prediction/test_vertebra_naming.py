"""The naming of vertebrae at the end of a prediction."""

import json
import logging
import re
import shlex
from contextlib import ExitStack
from pathlib import Path

import makers
import numpy as np
import pytest

from autospine.cli import main
from autospine.core.labels import LabelSpace, parse_labels
from autospine.core.types import LabelArray
from autospine.dataset.raw import Case, Dataset
from autospine.evaluation.held_out import HeldOut, Namer, score_held_out
from autospine.evaluation.postprocessing import Postprocessing, read_postprocessing
from autospine.io.images import read_labels, write_array
from autospine.prediction.case_outputs import CaseOutputs, PredictedMap
from autospine.prediction.label_maps import LabelMaps
from autospine.prediction.vertebra_naming import VertebraNaming, choose_naming, how_to_name
from autospine.storage.serialization import read_json
from autospine.vertebrae.identities import SpineIdentities

LEVELS = parse_labels({"background": 0, "canal": 1, **{f"L{i}_body": 1 + i for i in range(1, 6)}})
CASE = Case(name="a", images=(), labels=None, modality=None, site=None, subject="a")


def column(values: tuple[int, ...]) -> LabelArray:
    """Bodies one below the other with these labels, the first at the head, as bricks of a lumbar spine."""
    labels = np.zeros((36 * len(values) + 4, 40, 50), dtype=np.uint8)
    for place, value in enumerate(reversed(values)):
        labels[4 + 36 * place : 30 + 36 * place, 4:36, 4:46] = value
    return labels


def written(folder: Path, labels: LabelArray, space: LabelSpace, naming: VertebraNaming | None):
    grid = makers.grid(labels.shape)
    outputs = CaseOutputs(
        maps=LabelMaps(folder=folder, ending=".nii.gz", labels=space),
        post_processing=None,
        naming=naming,
        save_probabilities=False,
    )
    predicted = PredictedMap(labels=labels, grid=grid, stored=grid, image=None, modality="MR")
    result = outputs.write(CASE, predicted, ExitStack())
    return outputs, result, read_labels(folder / "a.nii.gz").array[0]


def test_names_that_no_spine_has_are_mended_and_listed(tmp_path: Path) -> None:
    swapped = column((2, 4, 3, 5, 6))
    naming = VertebraNaming.of_labels(LEVELS)
    assert naming is not None
    outputs, result, found = written(tmp_path, swapped, LEVELS, naming)
    assert np.array_equal(found, column((2, 3, 4, 5, 6)))
    assert {(each.from_label, each.to_label) for each in result.renamed} == {
        ("L2_body", "L3_body"),
        ("L3_body", "L2_body"),
    }
    assert all(each.voxels == 26 * 32 * 42 for each in result.renamed)
    names = read_json(tmp_path / "a_vertebrae.json", SpineIdentities)
    assert [each.level for each in names.vertebrae] == ["L1", "L2", "L3", "L4", "L5"]
    assert [each.called for each in names.vertebrae] == ["L1", "L3", "L2", "L4", "L5"]
    assert names.changes == result.renamed
    assert outputs.are_there(CASE)
    (tmp_path / "a_vertebrae.json").unlink()
    assert not outputs.are_there(CASE)


def test_a_right_map_stays_as_it_is(tmp_path: Path) -> None:
    right = column((2, 3, 4, 5, 6))
    _, result, found = written(tmp_path, right, LEVELS, VertebraNaming.of_labels(LEVELS))
    assert np.array_equal(found, right) and result.renamed == ()


def test_a_piece_of_the_sacrum_does_not_shift_the_names(tmp_path: Path) -> None:
    """A network that has learnt L1 to L5 has called it L5, and L4 and L5 both L4: that makes no T12 of L1."""
    bodies = column((2, 3, 4, 5, 5))
    labels = np.concatenate([np.zeros((36, *bodies.shape[1:]), dtype=np.uint8), bodies])
    labels[90:98][labels[90:98] > 0] = 4  # a third of L4 is called L3
    labels[12:20, 14:30, 13:37] = 6
    _, _, found = written(tmp_path, labels, LEVELS, VertebraNaming.of_labels(LEVELS))
    assert np.array_equal(found[36:], column((2, 3, 4, 5, 6)))


def test_it_can_be_left_out_and_leaves_no_names_of_another_map(tmp_path: Path) -> None:
    (tmp_path / "a_vertebrae.json").write_text("{}", encoding="utf-8")
    swapped = column((2, 4, 3, 5, 6))
    _, result, found = written(tmp_path, swapped, LEVELS, None)
    assert np.array_equal(found, swapped) and result.renamed == ()
    assert not (tmp_path / "a_vertebrae.json").exists()


@pytest.mark.parametrize(
    "labels", [{"vertebra": 1, "disc": 2}, {"L4": 1, "L5": 2}, {"bone": [1, 2], "L1": [1]}]
)
def test_other_datasets_have_no_naming(labels: dict[str, object]) -> None:
    order = [1, 2] if isinstance(next(iter(labels.values())), list) else None
    assert VertebraNaming.of_labels(parse_labels({"background": 0, **labels}, order)) is None


def test_an_empty_map_is_named_nothing(tmp_path: Path) -> None:
    empty = np.zeros((30, 20, 20), dtype=np.uint8)
    _, result, found = written(tmp_path, empty, LEVELS, VertebraNaming.of_labels(LEVELS))
    assert not found.any() and result.renamed == ()
    assert read_json(tmp_path / "a_vertebrae.json", SpineIdentities).vertebrae == ()


def test_an_error_of_the_naming_costs_no_label_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a_vertebrae.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(VertebraNaming, "apply", lambda *_: {}["L9"])
    swapped = column((2, 4, 3, 5, 6))
    with caplog.at_level(logging.WARNING, logger="autospine"):
        outputs, result, found = written(tmp_path, swapped, LEVELS, VertebraNaming.of_labels(LEVELS))
    assert np.array_equal(found, swapped)
    assert result.naming_error == "KeyError: 'L9'" and result.renamed == () and result.labelled
    (line,) = caplog.messages
    assert line.startswith("a: its vertebrae cannot be named (KeyError: 'L9')")
    assert f"autospine anatomy identify -i {tmp_path / 'a.nii.gz'} -o named --labels-of" in line
    assert not (tmp_path / "a_vertebrae.json").exists()
    assert not outputs.are_there(CASE), "so that --continue predicts and names it again"


def test_the_command_that_is_said_names_the_vertebrae_later(tmp_path: Path) -> None:
    names = {"background": 0, "canal": 1, **{f"L{i}_body": 1 + i for i in range(1, 6)}}
    description = tmp_path / "dataset.json"
    description.write_text(json.dumps({"labels": names}), encoding="utf-8")
    written(tmp_path / "out of it", column((2, 4, 3, 5, 6)), LEVELS, None)
    said = re.search("`autospine (.*)`", how_to_name(tmp_path / "out of it" / "a.nii.gz"))
    assert said is not None
    words = shlex.split(
        said[1].replace("DATASET.JSON", str(description)).replace("named", str(tmp_path / "named"))
    )
    assert main(words) == 0
    assert np.array_equal(read_labels(tmp_path / "named" / "a.nii.gz").array[0], column((2, 3, 4, 5, 6)))


def test_a_dicom_segmentation_is_predicted_again() -> None:
    assert how_to_name(Path("out/a.dcm")) == "predict the case again with --continue"


def chosen_by(folder: Path, held_out: dict[str, tuple[int, ...]], namer: Namer) -> Postprocessing:
    """Score held-out columns with these labels from the head down; the true ones are L1 to L5."""
    right = column((2, 3, 4, 5, 6))
    grid, cases = makers.grid(right.shape), []
    for name, values in held_out.items():
        write_array(folder / "labelsTr" / f"{name}.nii.gz", right, grid)
        write_array(folder / "validation" / f"{name}.nii.gz", column(values), grid)
        labels = folder / "labelsTr" / f"{name}.nii.gz"
        cases.append(Case(name=name, images=(), labels=labels, modality=None, site=None, subject=name))
    dataset = Dataset(
        folder=folder,
        name="Dataset001_Columns",
        channels=("MR",),
        labels=LEVELS,
        cases=tuple(cases),
        test_cases=(),
        file_ending=".nii.gz",
    )
    fold = HeldOut(fold="0", cases=tuple(held_out), folder=folder / "validation")
    score_held_out(folder, [fold], dataset, LEVELS, namer)
    chosen = read_postprocessing(folder)
    assert chosen is not None
    return chosen


def test_held_out_cases_decide_whether_predictions_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="autospine")
    naming = VertebraNaming.of_labels(LEVELS)
    assert naming is not None
    columns = {"swapped": (2, 4, 3, 5, 6), "right": (2, 3, 4, 5, 6)}
    helped = chosen_by(tmp_path / "helped", columns, naming.relabelled)
    assert helped.naming is not None
    assert (helped.naming.dice_before, helped.naming.dice_after) == (pytest.approx(0.8), pytest.approx(1.0))
    assert "class Dice from 0.800 to 1.000: predictions are named" in caplog.text
    assert choose_naming(LEVELS, helped, None) is not None
    assert choose_naming(LEVELS, helped, False) is None

    spoilt = chosen_by(tmp_path / "spoilt", columns, lambda _, labels, __: np.where(labels == 2, 3, labels))
    assert spoilt.naming is not None and spoilt.naming.harms
    caplog.clear()
    assert choose_naming(LEVELS, spoilt, None) is None
    assert "vertebrae are not named" in caplog.text and "--naming" in caplog.text
    assert choose_naming(LEVELS, spoilt, True) is not None
    assert choose_naming(LEVELS, None, None) is not None


def test_a_held_out_case_that_cannot_be_named_counts_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = chosen_by(tmp_path, {"a": (2, 4, 3, 5, 6)}, lambda *_: {}["L9"])
    assert chosen.naming is not None
    assert chosen.naming.dice_before == chosen.naming.dice_after == pytest.approx(0.6)
    assert "a: its vertebrae cannot be named (KeyError: 'L9')" in caplog.text
