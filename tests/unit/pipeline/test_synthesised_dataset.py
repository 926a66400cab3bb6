"""Datasets of images that are made from maps."""

import json
from pathlib import Path

import makers
import numpy as np
import pytest

from autospine.cli import main
from autospine.core.errors import DatasetError, WorkspaceError
from autospine.dataset.checks import verify
from autospine.dataset.raw import load_dataset
from autospine.io.images import read_labels, read_volume, write_array
from autospine.pipeline.synthesised_dataset import synthesise

NAMES = {"vertebra": 1, "disc": 2, "canal": 3}
TISSUES = {"air": 0, "autochthon_left": 7, "vertebrae_L3": 9, "spinal_cord": 11, "something": 12}
GRID = makers.grid((36, 30, 28), spacing_mm=(2.0, 2.0, 2.0))


def column() -> np.ndarray:
    """Vertebrae and discs in turn, from the top, with a canal behind them."""
    labels = np.zeros(GRID.shape, np.uint8)
    for level, start in enumerate(range(4, 32, 7)):
        labels[start : start + 5, 8:18, 8:20] = 1
        if level:
            labels[start - 2 : start, 8:18, 8:20] = 2
    labels[4:32, 19:24, 11:17] = 3
    return labels


def write(root: Path, *, tissues=True, names=None, labels=None, grid=GRID, codes=None) -> Path:
    """A dataset of one case, with a tissue map where asked for."""
    folder = root / "raw" / "Dataset001_Maps"
    for part in ("imagesTr", "labelsTr", *(["tissuesTr"] if tissues else [])):
        (folder / part).mkdir(parents=True)
    made = column() if labels is None else labels
    write_array(folder / "imagesTr" / "a_0000.nii.gz", made.astype(np.int16), GRID)
    write_array(folder / "labelsTr" / "a.nii.gz", made, GRID)
    if tissues:
        inside = np.full(GRID.shape, 7, np.int32)
        inside[:, :3] = 0
        for value, code in ((1, 9), (2, 12), (3, 11)):
            inside[made == value] = code
        write_array(folder / "tissuesTr" / "a.nii.gz", inside if codes is None else codes, grid)
    described = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **(names or NAMES)},
        "numTraining": 1,
        "file_ending": ".nii.gz",
        **({"tissues": TISSUES} if tissues else {}),
    }
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


def voxels(folder: Path) -> dict[str, bytes]:
    return {path.name: read_volume((path,)).array.tobytes() for path in sorted(folder.rglob("*.nii.gz"))}


def test_the_same_seed_makes_the_same_cases_with_any_number_of_workers(tmp_path):
    dataset = load_dataset(write(tmp_path))
    one = synthesise(dataset, tmp_path / "one", cases=3, seed=5)
    two = synthesise(dataset, tmp_path / "two", cases=3, seed=5, workers=2)
    assert voxels(one) == voxels(two)
    assert voxels(one) != voxels(synthesise(dataset, tmp_path / "other", cases=3, seed=6))
    assert len(set(voxels(one).values())) == 6


def test_a_made_dataset_is_complete_and_keeps_its_cases_together(tmp_path):
    made = load_dataset(synthesise(load_dataset(write(tmp_path)), tmp_path / "Dataset902_Made", cases=8))
    assert made.labels.names == tuple(NAMES)
    assert {case.subject for case in made.cases} == {"a"}
    assert {case.modality for case in made.cases} == {"CT", "MR"}
    assert any(case.site == "made_free" for case in made.cases)
    for case in made.cases:
        assert read_volume(case.images).array.shape[1:] == GRID.shape


def test_anatomy_stays_within_what_adults_differ_by(tmp_path):
    made = load_dataset(synthesise(load_dataset(write(tmp_path)), tmp_path / "made", cases=12, kinds=["CT"]))
    before, shares = column(), []
    for case in made.cases:
        labels = read_labels(case.labels).array[0]
        shares.append(np.sum(labels == 1) / np.sum(before == 1))
        # The canal stays behind the vertebrae, and the vertebra at the top stays at the top.
        assert np.argwhere(labels == 3)[:, 1].mean() > np.argwhere(labels == 1)[:, 1].mean() + 3
    assert 0.85**3 * 0.8 < min(shares) < 1 < max(shares) < 1.18**3 * 1.2


def test_structures_of_a_ct_have_their_hounsfield_units(tmp_path):
    made = load_dataset(synthesise(load_dataset(write(tmp_path)), tmp_path / "made", cases=4, kinds=["CT"]))
    for case in made.cases:
        image, labels = read_volume(case.images).array[0], read_labels(case.labels).array[0]
        assert image.dtype == np.int16
        assert np.percentile(image, 3) < -800
        assert 60 < np.median(image[labels == 1]) < 500
        assert -60 < np.median(image[labels == 3]) < 130


def test_label_maps_serve_where_there_are_no_tissue_maps(tmp_path, caplog):
    caplog.set_level("INFO", logger="autospine")
    names = {"vertebra": 1, "disc": 2, "thing": 3}
    dataset = load_dataset(write(tmp_path, tissues=False, names=names))
    made = load_dataset(synthesise(dataset, tmp_path / "made", cases=2))
    assert len(made.cases) == 2
    assert "drawn as soft tissue, since their names say nothing of it: thing" in caplog.text
    assert "has one class" not in caplog.text
    single = write(tmp_path / "b", tissues=False, names={"thing": 1}, labels=(column() == 1).astype(np.uint8))
    synthesise(load_dataset(single), tmp_path / "single", cases=1)
    assert "has one class and no tissue maps" in caplog.text


def test_what_cannot_be_drawn_is_said(tmp_path):
    good = load_dataset(write(tmp_path))
    with pytest.raises(WorkspaceError, match="at least one case"):
        synthesise(good, tmp_path / "x", cases=0)
    regions = write(tmp_path / "regions", names={"whole": [1, 2], "disc": 2, "canal": 3})
    text = json.loads((regions / "dataset.json").read_text()) | {"regions_class_order": [1, 2, 3]}
    (regions / "dataset.json").write_text(json.dumps(text))
    with pytest.raises(DatasetError, match="found regions"):
        synthesise(load_dataset(regions), tmp_path / "x", cases=1)
    assert not (tmp_path / "x").exists()


def _codes(value: int | float) -> np.ndarray:
    """A map of one tissue with one voxel of another value."""
    codes = np.full(GRID.shape, 7, np.asarray(value).dtype if isinstance(value, float) else np.int32)
    codes[3, 4, 5] = value
    return codes


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (99, r"found 99 \(1 voxel\); mend either"),
        (7 + (98 << 8) + (60 << 16), r"found 98 \(1 voxel\); mend either"),  # as the second tissue
        (256 + 7, r"found 263 \(1 voxel\)"),  # of a label map with large values, no second tissue
        (7.5, "found float64; store it as int32"),
    ],
)
def test_a_tissue_without_a_name_ends_in_a_sentence(tmp_path, value, found):
    dataset = load_dataset(write(tmp_path, codes=_codes(value)))
    with pytest.raises(DatasetError, match=rf"tissue.* .*tissuesTr/a\.nii\.gz, {found}") as raised:
        synthesise(dataset, tmp_path / "x", cases=1)
    assert f"a: {raised.value}" in verify(dataset).faults
    assert not (tmp_path / "x").exists()


def test_a_map_on_another_grid_ends_in_a_sentence(tmp_path):
    shifted = makers.grid(GRID.shape, spacing_mm=GRID.spacing_mm, origin_mm=(9.0, 0.0, 0.0))
    dataset = load_dataset(write(tmp_path, grid=shifted))
    with pytest.raises(
        DatasetError, match=r"the tissue map .*a\.nii\.gz on the grid of its case.* 9 mm apart"
    ):
        synthesise(dataset, tmp_path / "x", cases=1)


def test_labels_without_a_name_or_too_large_to_draw_end_in_a_sentence(tmp_path):
    labels = column()
    labels[0, 0, :2] = 9
    unknown = load_dataset(write(tmp_path / "unknown", tissues=False, labels=labels))
    with pytest.raises(DatasetError, match=r"the labels .* in .*a\.nii\.gz, found 9 \(2 voxels\)"):
        synthesise(unknown, tmp_path / "x", cases=1)
    names = {"vertebra": 300, "disc": 2, "canal": 3}
    large = load_dataset(write(tmp_path / "large", tissues=False, names=names))
    with pytest.raises(DatasetError, match=r"label values from 0 to 255 .*, found 300; renumber"):
        synthesise(large, tmp_path / "x", cases=1)
    assert not (tmp_path / "x").exists()


def test_what_is_ignored_stays_ignored(tmp_path):
    labels = column()
    labels[:, :2] = 255
    dataset = load_dataset(write(tmp_path, tissues=False, names={**NAMES, "ignore": 255}, labels=labels))
    made = load_dataset(synthesise(dataset, tmp_path / "made", cases=1))
    assert made.labels.ignore == 255
    assert (read_labels(made.cases[0].labels).array == 255).any()
    assert verify(made).faults == ()


def test_the_command_writes_a_dataset_that_the_next_command_finds(tmp_path, capsys):
    write(tmp_path)
    target = tmp_path / "raw" / "Dataset902_Made"
    words = [
        "synthesise",
        "1",
        "-w",
        str(tmp_path),
        "-o",
        str(target),
        "--cases",
        "2",
        "--kind",
        "MR",
        "-j",
        "1",
    ]
    assert main(words) == 0
    assert "2 cases in" in capsys.readouterr().out
    assert {case.modality for case in load_dataset(target).cases} == {"MR"}
    assert main(words) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert main([*words, "--kind", "PET"]) == 2
    assert "'PET'" in capsys.readouterr().err
    words[words.index(str(target))] = str(tmp_path / "raw" / "Made")
    assert main(words) == 1
    assert "such as Dataset900_Phantom" in capsys.readouterr().err
