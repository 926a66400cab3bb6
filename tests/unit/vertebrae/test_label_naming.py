import json
from pathlib import Path

import makers
import numpy as np
import pytest
from scipy import ndimage

from autospine.cli.app import main
from autospine.core.errors import FormatError
from autospine.core.geometry import Grid
from autospine.core.labels import VERSE
from autospine.core.types import LabelArray
from autospine.io.images import read_labels, write_array
from autospine.phantom.anatomy import sample_posture, sample_spine
from autospine.phantom.sacrum import sacral_segments, segment_parts
from autospine.phantom.scan import raster_grid
from autospine.phantom.shapes import Raster, render
from autospine.phantom.vertebra import arch_parts, body_part
from autospine.storage.serialization import read_json
from autospine.vertebrae.identities import SpineIdentities
from autospine.vertebrae.label_naming import NamedMap, NamelessMap, name_labels

LUMBAR = [VERSE[level] for level in ("T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5")]


@pytest.fixture(scope="module")
def lumbosacral(real_data: Path) -> tuple[LabelArray, Grid]:
    """A CT from T9 to the sacrum."""
    volume = read_labels(real_data / "real" / "ct_lumbosacral" / "labels_verse.nii.gz")
    return volume.array[0].astype(np.int16), volume.grid


def named(labels: LabelArray, grid: Grid) -> NamedMap:
    return name_labels("case", labels, grid, VERSE)


def right(found: LabelArray, reference: LabelArray) -> list[int]:
    """The vertebrae that have their label at most of their voxels."""
    return [value for value in LUMBAR if np.bincount(found[reference == value]).argmax() == value]


def test_a_right_map_stays_as_it_is(lumbosacral) -> None:
    labels, grid = lumbosacral
    result = named(labels, grid)
    assert np.mean(result.labels != labels) < 1e-6
    assert [each.level for each in result.identities.vertebrae][-6:] == [
        "L1",
        "L2",
        "L3",
        "L4",
        "L5",
        "sacrum",
    ]
    assert all(each.confidence > 0.8 for each in result.identities.vertebrae)
    assert result.identities.vertebrae[0].cut and not result.identities.vertebrae[4].cut
    assert result.identities.last_lumbar == "L5"


def drawn(variant: str) -> tuple[LabelArray, Grid]:
    """The vertebrae of a phantom from the lower chest down, and the top of its sacrum."""
    random = np.random.default_rng(4)
    spine = sample_spine(random, sample_posture(random), variant)
    steps = 2.5 * np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
    raster = Raster(shape=(140, 76, 60), origin_mm=np.array([-75.0, -90, -30]), steps_mm=steps)
    labels = np.zeros(raster.shape, dtype=np.int16)
    solids = [(each.frame, (body_part(each), *arch_parts(each)), each.label) for each in spine.vertebrae[1:]]
    chain = sacral_segments(spine)
    solids.append((chain[0].frame, segment_parts(chain, 0), VERSE["sacrum"]))
    for frame, parts, value in solids:
        found = render(raster, frame, parts, margin_mm=2.0)
        if found is not None:
            box, distance = found
            labels[box][(distance < 0) & (labels[box] == 0)] = value
    return labels, raster_grid(raster)


def kept(found: LabelArray, labels: LabelArray) -> bool:
    """Whether every vertebra of at least 10 ml has its label at most of its voxels."""
    large = [value for value in np.unique(labels).tolist() if value and np.sum(labels == value) > 640]
    return all(np.bincount(found[labels == value]).argmax() == value for value in large)


@pytest.mark.parametrize(
    ("variant", "level"), [("usual", "L5"), ("four_lumbar", "L4"), ("L6", "L6"), ("T13", "T13")]
)
def test_an_unusual_number_of_vertebrae_is_no_fault_of_the_map(variant: str, level: str) -> None:
    labels, grid = drawn(variant)
    result = named(labels, grid)
    assert kept(result.labels, labels)
    assert {level, "sacrum"} <= {each.level for each in result.identities.vertebrae}


@pytest.mark.parametrize("level", ["L2", "L3", "L4"])
@pytest.mark.parametrize("part", ["upper", "lower"])
def test_a_half_with_the_label_of_the_neighbour_that_it_touches_is_given_back(
    lumbosacral, level: str, part: str
) -> None:
    labels, grid = lumbosacral
    value = VERSE[level]
    whole = labels == value
    heights = np.flatnonzero(whole.any(axis=(1, 2)))
    planes = slice(int(heights.mean()), None) if part == "upper" else slice(int(heights.mean()))
    half = np.zeros_like(whole)
    half[planes] = whole[planes]
    result = named(np.where(half, value - 1 if part == "upper" else value + 1, labels), grid)
    assert np.mean(result.labels[half] == value) > 0.6  # the tip of the process stays
    assert np.mean(result.labels[whole & ~half] == value) > 0.99
    assert right(result.labels, labels) == right(labels, labels)


def test_noise_in_single_voxels_is_mended() -> None:
    labels, grid = drawn("usual")
    random = np.random.default_rng(0)
    noisy = labels.copy()
    hit = (labels > 0) & (labels != VERSE["sacrum"]) & (random.random(labels.shape) < 0.2)
    noisy[hit] = random.choice([VERSE["T12"], VERSE["L1"], VERSE["L2"], VERSE["L3"]], int(hit.sum()))
    found = named(noisy, grid).labels
    inside = (labels > 0) & (labels != VERSE["sacrum"])
    assert np.mean(noisy[inside] == labels[inside]) < 0.9
    assert np.mean(found[inside] == labels[inside]) > 0.98


def test_a_spine_that_few_people_have_is_told_with_its_probability() -> None:
    labels, grid = drawn("four_lumbar")
    notes = named(labels, grid).identities.notes
    assert any(note.startswith("L4 is the last lumbar vertebra, with a probability of 0.") for note in notes)
    labels, grid = drawn("usual")
    assert not any("last lumbar" in note for note in named(labels, grid).identities.notes)


def test_names_that_are_not_believed_are_told(real_data: Path) -> None:
    volume = read_labels(real_data / "real" / "verse010" / "labels_verse.nii.gz")
    labels = volume.array[0].astype(np.int16)
    notes = named(np.where(labels > 0, labels + 1, labels), volume.grid).identities.notes
    assert "the map calls a vertebra L6, and the likeliest spine has none" in notes
    assert any(note.startswith("unknown levels keep their labels: what is called L2 is L1") for note in notes)


def test_what_is_too_small_to_be_counted_is_told(lumbosacral) -> None:
    labels, grid = lumbosacral
    assert any("is called T9, which is not counted" in note for note in named(labels, grid).identities.notes)


def test_a_level_that_no_usual_spine_has_is_no_claim_where_another_is_skipped() -> None:
    labels, grid = drawn("usual")
    shifted = np.where((labels >= VERSE["L2"]) & (labels <= VERSE["L5"]), labels + 1, labels)
    assert not kept(shifted, labels)
    assert kept(named(shifted, grid).labels, labels)


@pytest.mark.parametrize(("first", "second"), [("L1", "L3"), ("T12", "L2")])
def test_two_swapped_labels_do_not_hide_an_unusual_spine(first: str, second: str) -> None:
    labels, grid = drawn("four_lumbar")
    one, other = VERSE[first], VERSE[second]
    swapped = np.select([labels == one, labels == other], [other, one], labels)
    assert not kept(swapped, labels)
    assert kept(named(swapped, grid).labels, labels)


def test_a_shift_from_a_level_near_the_end_is_no_claim_of_an_unusual_spine() -> None:
    labels, grid = drawn("usual")
    for level in ("L3", "L4", "T12"):
        shifted = np.where((labels >= VERSE[level]) & (labels <= VERSE["L5"]), labels + 1, labels)
        assert kept(named(shifted, grid).labels, labels), level


@pytest.mark.parametrize("levels", [["L1"], ["T6", "T7"], ["T8", "T9", "T10"], ["L1", "L2"], ["C7", "T1"]])
def test_vertebrae_that_alone_are_labelled_keep_their_levels(real_data: Path, levels: list[str]) -> None:
    """Room for others is no proof that there are none."""
    volume = read_labels(real_data / "real" / "ct_thorax" / "labels_verse.nii.gz")
    labels = volume.array[0]
    chosen = np.where(np.isin(labels, [VERSE[level] for level in levels]), labels, 0)
    result = named(chosen, volume.grid)
    assert [each.level for each in result.identities.vertebrae] == levels
    assert np.array_equal(result.labels, chosen)


@pytest.fixture(scope="module")
def cervical(real_data: Path) -> tuple[LabelArray, Grid]:
    """A CT from C1 to T1."""
    volume = read_labels(real_data / "real" / "ct_cervical" / "labels_verse.nii.gz")
    return volume.array[0].astype(np.int16), volume.grid


@pytest.mark.parametrize("called", ["C1", "C2"])
def test_one_label_for_both_uppermost_vertebrae_is_two_vertebrae(cervical, called: str) -> None:
    labels, grid = cervical
    both = np.where(np.isin(labels, (VERSE["C1"], VERSE["C2"])), VERSE[called], labels)
    found = named(both, grid).labels
    for level in ("C1", "C2", "C3", "C7", "T1"):
        assert np.bincount(found[labels == VERSE[level]]).argmax() == VERSE[level], level


def test_a_neck_that_is_counted_from_its_second_vertebra_is_counted_anew(cervical) -> None:
    labels, grid = cervical
    shifted = np.where((labels > 1) & (labels <= VERSE["T1"]), labels - 1, labels)
    found = named(shifted, grid).labels
    for level in ("C1", "C2", "C3", "C4", "C5", "C6", "C7", "T1"):
        assert np.bincount(found[labels == VERSE[level]]).argmax() == VERSE[level], level


def test_a_spinous_process_with_the_label_of_its_lower_half_is_no_vertebra() -> None:
    labels, grid = drawn("usual")
    inside = labels == VERSE["L3"]
    heights = np.flatnonzero(inside.any(axis=(1, 2)))
    inside[: int(heights.mean()) - 2] = False
    halved = np.where(inside, VERSE["L2"], labels)
    result = named(halved, grid)
    assert [each.level for each in result.identities.vertebrae][-6:] == [*LEVELS_OF_FIVE.split(), "sacrum"]
    assert kept(result.labels, labels)


def test_the_sacrum_lies_a_step_below_the_last_lumbar_vertebra(lumbosacral) -> None:
    labels, grid = lumbosacral
    centres = {each.level: each.position_mm for each in named(labels, grid).identities.vertebrae}
    assert 20 < np.linalg.norm(np.subtract(centres["sacrum"], centres["L5"])) < 40


def test_a_shift_is_taken_back(lumbosacral) -> None:
    labels, grid = lumbosacral
    shifted = np.where((labels >= 21) & (labels <= 24), labels + 1, labels)
    result = named(shifted, grid)
    assert right(shifted, labels) == LUMBAR[:4] and right(result.labels, labels) == LUMBAR
    assert {(each.from_label, each.to_label) for each in result.changes} >= {("L3", "L2"), ("L6", "L5")}


def test_swapped_and_random_labels_are_mended(lumbosacral) -> None:
    labels, grid = lumbosacral
    swapped = np.select([labels == 20, labels == 22], [22, 20], labels)
    assert right(named(swapped, grid).labels, labels) == LUMBAR
    noisy = np.where(labels == 21, 4, labels)
    assert right(named(noisy, grid).labels, labels) == LUMBAR


def test_nothing_is_removed(lumbosacral) -> None:
    labels, grid = lumbosacral
    noisy = np.where(labels == 21, 4, labels)
    assert np.array_equal(named(noisy, grid).labels == 0, labels == 0)


def test_exchanged_head_and_feet_are_noticed(lumbosacral) -> None:
    labels, grid = lumbosacral
    result = named(labels[::-1], grid)
    assert "head and feet" in result.identities.notes[0]
    assert np.mean(result.labels != labels[::-1]) < 1e-6
    (fifth,) = (each for each in result.identities.vertebrae if each.level == "L5")
    place = np.argwhere(labels[::-1] == VERSE["L5"]).mean(axis=0)
    assert np.linalg.norm(grid.physical(place) - fifth.position_mm) < 40


def test_three_vertebrae_without_an_anchor_are_named_as_the_map_does(real_data: Path) -> None:
    volume = read_labels(real_data / "real" / "ct_lumbar_crop" / "labels_verse.nii.gz")
    result = named(volume.array[0], volume.grid)
    assert [each.called for each in result.identities.vertebrae] == ["L2", "L3", "L4"]
    assert result.changes == ()


def ball(at: tuple[int, int, int], value: int, labels: LabelArray) -> LabelArray:
    s, p, left = np.ogrid[tuple(slice(0, n) for n in labels.shape)]
    inside = (s - at[0]) ** 2 + (p - at[1]) ** 2 + (left - at[2]) ** 2 < 14**2
    return np.where(inside, value, labels).astype(np.uint8)


def test_an_empty_map_and_a_single_vertebra(tmp_path: Path) -> None:
    empty = np.zeros((60, 50, 50), dtype=np.uint8)
    grid = makers.grid(empty.shape)
    result = named(empty, grid)
    assert result.identities.vertebrae == () and result.identities.notes == ("there is no vertebra",)
    one = ball((30, 25, 25), 22, empty)
    result = named(one, grid)
    assert [(each.called, each.level) for each in result.identities.vertebrae] == [("L3", "unknown")]
    assert np.array_equal(result.labels, one)  # too small for L3, and too large for any of the neck


def test_the_command_writes_names_and_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.zeros((110, 50, 50), dtype=np.uint8)
    for place, value in ((90, 29), (54, 28), (18, 27)):
        labels = ball((place, 25, 25), value, labels)
    write_array(tmp_path / "in" / "a.nii.gz", labels, makers.grid(labels.shape))
    # As a folder of predictions holds it: a record is no file of detected points.
    (tmp_path / "in" / "predictions.json").write_text('{"format_version": 1}', encoding="utf-8")
    words = ["anatomy", "identify", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    assert main([*words, "--scheme", "totalsegmentator"]) == 0
    assert "1 case in" in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "a_vertebrae.json").read_text(encoding="utf-8"))
    assert [each["called"] for each in written["vertebrae"]] == ["L3", "L4", "L5"]
    assert [each["order"] for each in written["vertebrae"]] == [1, 2, 3]
    assert (read_labels(tmp_path / "out" / "a.nii.gz").array != 0).sum() == (labels != 0).sum()


def test_the_command_keeps_what_it_has_changed(tmp_path: Path) -> None:
    labels = np.zeros((190, 50, 50), dtype=np.uint8)
    for place, value in ((170, 20), (134, 22), (98, 21), (62, 23), (22, 24)):  # L2 and L3 are exchanged
        labels = ball((place, 25, 25), value, labels)
    write_array(tmp_path / "in" / "a.nii.gz", labels, makers.grid(labels.shape))
    out = tmp_path / "out"
    assert main(["anatomy", "identify", "-i", str(tmp_path / "in"), "-o", str(out)]) == 0
    written = json.loads((out / "a_vertebrae.json").read_text(encoding="utf-8"))
    assert written["format_version"] == 2
    voxels = int((labels == 22).sum())
    assert {(each["from_label"], each["to_label"]) for each in written["changes"]} == {
        ("L3", "L2"),
        ("L2", "L3"),
    }
    assert all(each["voxels"] == voxels for each in written["changes"])
    assert [each["ml"] for each in written["changes"]] == pytest.approx([voxels / 1000] * 2, abs=1e-3)
    assert np.array_equal(read_labels(out / "a.nii.gz").array[0] == 21, labels == 22)


def test_of_many_changes_the_largest_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels, grid = drawn("usual")
    random = np.random.default_rng(0)
    hit = (labels > 0) & (labels != VERSE["sacrum"]) & (random.random(labels.shape) < 0.2)
    labels[hit] = random.choice([VERSE["L1"], VERSE["L2"], VERSE["L3"]], int(hit.sum()))
    write_array(tmp_path / "a.nii.gz", labels.astype(np.uint8), grid)
    out = tmp_path / "out"
    assert main(["anatomy", "identify", "-i", str(tmp_path / "a.nii.gz"), "-o", str(out)]) == 0
    printed = "".join(capsys.readouterr())
    written = json.loads((out / "a_vertebrae.json").read_text(encoding="utf-8"))["changes"]
    assert len(written) > 8
    assert printed.count(" to L") + printed.count(" to T") == 8
    assert f"in {len(written) - 8} more, listed in {out / 'a_vertebrae.json'}" in printed


def test_names_of_the_former_format_are_read_and_of_a_later_one_refused(tmp_path: Path) -> None:
    former = {
        "format_version": 1,
        "case": "a",
        "vertebrae": [],
        "no_vertebra_mm": [],
        "last_thoracic": None,
        "last_lumbar": None,
        "notes": ["there is no vertebra"],
    }
    path = tmp_path / "a_vertebrae.json"
    path.write_text(json.dumps(former), encoding="utf-8")
    assert read_json(path, SpineIdentities).changes == ()
    path.write_text(json.dumps(former | {"format_version": 3}), encoding="utf-8")
    with pytest.raises(FormatError, match=r"format_version 1 or 2, found 3; use the AutoSpine version"):
        read_json(path, SpineIdentities)


def test_the_command_names_detected_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heights = [0, -25, -52, -82, -115, -150, -186, -222, -258]
    regions = [[0.03, 0.99, 0.03]] * 4 + [[0.03, 0.02, 0.99]] * 5
    points = [
        {
            "coordinates": {"world_space": [x, y, z + 5 * bool(y)]},
            "type": {"keypoint_type": kind, "spine_segment_probabilities": p},
        }
        for z, p in zip(heights, regions, strict=True)
        for kind, x, y in (("body", 0, 0), ("left", 14, 22), ("right", -14, 22))
    ]
    (tmp_path / "a.json").write_text(json.dumps(points), encoding="utf-8")
    words = ["anatomy", "identify", "-i", str(tmp_path / "a.json"), "-o", str(tmp_path / "out")]
    assert main(words) == 0
    assert "a: T9 T10 T11 T12 L1 L2 L3 L4 L5" in capsys.readouterr().out
    for point in points:
        point["coordinates"]["world_space"][2] *= -1
    (tmp_path / "a.json").write_text(json.dumps(points), encoding="utf-8")
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "a: T9 T10 T11 T12 L1 L2 L3 L4 L5" in said and "head and feet are exchanged" in said
    written = json.loads((tmp_path / "out" / "a_vertebrae.json").read_text(encoding="utf-8"))
    assert (
        written["vertebrae"][0]["position_mm"][2] == 0 and written["vertebrae"][-1]["position_mm"][2] == 258
    )
    assert main([*words, "--uppermost", "L4"]) == 0
    assert "the uppermost vertebra cannot be L4 with those that lie below it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "said"),
    [("{}", "a list of"), ("[1]", "1 of 1 entries"), ("nonsense", "no JSON")],
)
def test_files_that_hold_no_points_are_refused(tmp_path, capsys, content: str, said: str) -> None:
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    assert main(["anatomy", "identify", "-i", str(tmp_path / "a.json"), "-o", str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err


def test_labels_of_another_scheme_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ball((15, 15, 15), 99, np.zeros((30, 30, 30), dtype=np.uint8))
    write_array(tmp_path / "in" / "a.nii.gz", labels, makers.grid(labels.shape))
    words = ["anatomy", "identify", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    assert main([*words, "--scheme", "verse"]) == 1
    assert "found 99; give the scheme" in capsys.readouterr().err
    assert main([*words, "--scheme", "spider"]) == 1
    assert "spider-from-bottom" in capsys.readouterr().err


def test_points_of_no_vertebra(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text("[]", encoding="utf-8")
    assert main(["anatomy", "identify", "-i", str(tmp_path / "a.json"), "-o", str(tmp_path / "out")]) == 0
    assert "a: nothing; there is no vertebra" in capsys.readouterr().out


def test_damaged_files_do_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ball((15, 15, 15), 22, np.zeros((30, 30, 30), dtype=np.uint8))
    for name in "abc":
        write_array(tmp_path / "in" / f"{name}.nii.gz", labels, makers.grid(labels.shape))
    makers.cut_short(tmp_path / "in" / "b.nii.gz")
    (tmp_path / "in" / "d.json").write_text("nonsense", encoding="utf-8")
    out = tmp_path / "out"
    assert main(["anatomy", "identify", "-i", str(tmp_path / "in"), "-o", str(out)]) == 1
    assert "2 of 4 files failed: b, d; 2 others are written" in capsys.readouterr().err
    written = sorted(path.name for path in out.iterdir())
    assert written == ["a.nii.gz", "a_vertebrae.json", "c.nii.gz", "c_vertebrae.json"]


FIVE = {f"L{number}": number for number in range(1, 6)}
"""Scheme of a network that has learnt the lumbar levels alone."""


def five_levels(labels: LabelArray, called: dict[str, str]) -> LabelArray:
    """What such a network makes of a spine: each level that it sees, and what it calls it."""
    found = np.zeros(labels.shape, dtype=np.uint8)
    for level, name in called.items():
        found[labels == VERSE[level]] = FIVE[name]
    return found


def counted(labels: LabelArray, *missed: str) -> NamelessMap:
    """What a network that tells no levels makes of it: vertebrae that touch, and the sacrum."""
    seen = np.where(labels == VERSE["sacrum"], 2, labels > 0).astype(np.uint8)
    for level in missed:
        seen[labels == VERSE[level]] = 0
    return NamelessMap(labels=seen, vertebra=1, sacrum=2)


def levels_right(found: LabelArray, labels: LabelArray, levels: str) -> list[str]:
    """The levels that most of what has a label in their vertebra calls right."""
    right = []
    for level in levels.split():
        inside = found[(labels == VERSE[level]) & (found > 0)]
        if inside.size and np.bincount(inside).argmax() == FIVE[level]:
            right.append(level)
    return right


LEVELS_OF_FIVE = "L1 L2 L3 L4 L5"


@pytest.mark.parametrize("missed", [(), ("L1",), ("L5",), ("T11", "T12"), ("sacrum",)])
def test_a_second_network_changes_nothing_in_a_right_map(missed: tuple[str, ...]) -> None:
    labels, grid = drawn("usual")
    right = five_levels(labels, {level: level for level in FIVE})
    result = name_labels("case", right, grid, FIVE, nameless=counted(labels, *missed))
    assert np.array_equal(result.labels, right)
    assert result.changes == ()


def test_what_a_second_network_counts_takes_a_shift_back() -> None:
    """The sacrum lies next to what the network calls L4, and it has left out L1."""
    labels, grid = drawn("usual")
    shifted = five_levels(labels, {"L2": "L1", "L3": "L2", "L4": "L3", "L5": "L4"})
    assert levels_right(shifted, labels, LEVELS_OF_FIVE) == []
    result = name_labels("case", shifted, grid, FIVE, nameless=counted(labels))
    assert levels_right(result.labels, labels, LEVELS_OF_FIVE) == ["L2", "L3", "L4", "L5"]
    assert np.array_equal(result.labels > 0, shifted > 0)
    levels = [each.level for each in result.identities.vertebrae]
    assert levels[-6:] == ["L1", "L2", "L3", "L4", "L5", "sacrum"]


def test_a_label_that_covers_two_vertebrae_is_split_between_those_that_a_second_network_tells_apart() -> None:
    labels, grid = drawn("usual")
    merged = five_levels(labels, {"L1": "L1", "L2": "L2", "L3": "L2", "L4": "L4", "L5": "L5"})
    between = (labels == 0) & ndimage.binary_dilation(merged == FIVE["L2"], iterations=4)
    merged[between] = FIVE["L2"]  # with the disc
    result = name_labels("case", merged, grid, FIVE, nameless=counted(labels))
    assert levels_right(result.labels, labels, LEVELS_OF_FIVE) == LEVELS_OF_FIVE.split()
    assert np.array_equal(result.labels > 0, merged > 0)


def test_what_a_second_network_has_missed_keeps_its_place_in_the_order() -> None:
    labels, grid = drawn("usual")
    swapped = five_levels(labels, {"L1": "L1", "L2": "L3", "L3": "L2", "L4": "L4", "L5": "L5"})
    result = name_labels("case", swapped, grid, FIVE, nameless=counted(labels, "L2", "sacrum"))
    assert levels_right(result.labels, labels, LEVELS_OF_FIVE) == LEVELS_OF_FIVE.split()


def test_a_map_without_vertebrae_stays_without_them() -> None:
    labels, grid = drawn("usual")
    empty = np.zeros(labels.shape, dtype=np.uint8)
    result = name_labels("case", empty, grid, FIVE, nameless=counted(labels))
    assert not result.labels.any()
    assert result.identities.notes == ("there is no vertebra",)


def test_a_spinous_process_that_the_border_cuts_off_its_body_is_no_vertebra() -> None:
    labels = np.zeros((44, 90, 60), dtype=np.int16)
    s, p, x = np.ogrid[tuple(slice(0, n) for n in labels.shape)]
    labels[(s - 10) ** 2 + (p - 25) ** 2 + (x - 30) ** 2 < 13**2] = VERSE["T12"]
    labels[(s - 42) ** 2 + (p - 25) ** 2 + (x - 30) ** 2 < 13**2] = VERSE["T11"]
    labels[(s >= 30) & (np.abs(p - 72) < 12) & (np.abs(x - 30) < 4)] = VERSE["T11"]
    result = named(labels, makers.grid(labels.shape))
    assert np.array_equal(result.labels, labels)
    assert [each.called for each in result.identities.vertebrae] == ["T11", "T12"]
