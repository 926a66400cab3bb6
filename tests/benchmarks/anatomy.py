"""Name the vertebrae of real scans: `make bench-anatomy`.

Prints one JSON object last. Of the 300 CT with keypoints, every second one by name served for tuning; the
figures are those of the others:

- `keypoints_id_rate`: share of the true bodies that the level is named of within 20 mm; one that the detector
  has missed, or whose level is `unknown`, counts as not named;
- `keypoints_id_rate_found`: the same among those that the detector has found;
- `keypoints_scans_right`: share of the scans in which every true body is named right, and
  `keypoints_scans_right_found` every one that was found;
- `keypoints_unknown`: share of the found bodies whose level is `unknown`, and `keypoints_unknown_wrong` the
  share of these whose likeliest level is wrong;
- `confidence_at_90`: share that is right of the bodies named with a probability of 0.85 to 0.95;
- `faults_id_rate`: share of the vertebrae of real masks that have the right label after faults were put in
  and mended, where the sacrum or C1 is in view; `faults_before` is that share before;
- `unnamed_id_rate`: share of the vertebrae of real masks whose names were taken away that are named right
  where the sacrum is in view, and `unnamed_unanchored_wrong` the share that is named wrong where it is not;
- `right_maps_loss`: largest loss of mean Dice on the same maps without faults, and `dice_change_worst` the
  same as a change, which is negative or 0;
- of 200 phantom spines in random fields of view, half of them with an unusual number of vertebrae:
  `id_rate_anchored`, the share of the vertebrae that have the right label after a fault was put in and
  mended where the sacrum or C1 is in view, `id_rate_unanchored` where neither is, and
  `id_rate_unanchored_relative` the share of neighbours there that are as many levels apart as they should be;
  `phantoms_right_kept`, the same share of the maps without faults, and `phantoms_right_changed_worst` the
  largest share of labelled voxels that one of these lost; `phantoms_unnamed_id_rate` and
  `phantoms_unnamed_unanchored_wrong`, as above; `confidence_calibration_error`, the mean distance of
  probability and share of right names in ten bins, and `phantoms_confidence_at_90` as above;
- of the same phantoms with ribs, which in one map of four are miscounted by one: `id_rate_ribs`, as
  `id_rate_anchored` where a rib, the sacrum or C1 is in view, `ribs_right_kept` and `ribs_unnamed_id_rate`;
- `height_error_mm`, `angle_error_deg`, `canal_area_error`: mean errors of body heights, of endplates' angles
  and of the canal's area (in parts of it) on phantoms of eight voxel sizes, obliquely; `height_within`
  is the share of heights within 0.5 mm or half of the longest voxel edge, and `cobb_error_deg` the largest
  error of the coronal Cobb angle;
- `centroid_error_mm`: largest distance of a centre from the one that VerSe publishes;
- `seconds_large`, `gb_large`: time and memory of naming and measuring `labels_large` labels in
  512 x 512 x 800 voxels, files included.

With `--lumbar MODEL`, a model folder of Dataset002 trained by cross-validation in 15 minutes:
`lumbar_mr_levels_right`, share of the levels L1 to L5 that its held-out predictions name right where the
starter counts, `lumbar_mr_levels_alone` by the label map alone, `lumbar_mr_levels_before` without naming, and
the means of Dice likewise.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import anatomy_lumbar
import anatomy_measures
import anatomy_phantoms
import numpy as np
from anatomy_faults import LARGE_ML, volume_ml, with_faults
from result_page import measured_on, write_measured

from autospine.core.labels import VERSE
from autospine.core.types import LabelArray
from autospine.io.images import read_labels
from autospine.storage.serialization import parse_json
from autospine.vertebrae.decoding import decode
from autospine.vertebrae.detection_files import read_detections
from autospine.vertebrae.identities import UNKNOWN, VertebraIdentity, identities_of
from autospine.vertebrae.keypoint_detections import found_vertebrae
from autospine.vertebrae.label_naming import name_labels
from autospine.vertebrae.schemes import COMMON
from autospine.vertebrae.unnamed_vertebrae import FIRST_UNKNOWN, name_unnamed

NEAR_MM = 20.0
"""Distance within which a body is the one that is meant, as in the VerSe challenge."""

MASKS = {
    "ct_cervical": "ct_cervical/labels_verse.nii.gz",
    "ct_lumbosacral": "ct_lumbosacral/labels_verse.nii.gz",
    "ct_thorax": "ct_thorax/labels_verse.nii.gz",
    "mask_only_s0001": "mask_only_s0001/labels_verse.nii.gz",
    "mask_only_s0006": "mask_only_s0006/labels_verse.nii.gz",
    "verse004": "verse004/sub-verse004_seg-vert_msk.nii.gz",
    "verse010": "verse010/labels_verse.nii.gz",
}
"""Whole vertebrae by level, in the integers of VerSe."""

SACRAL = (VERSE["sacrum"], 29)
"""The sacrum, and its first segment where a map has one of its own."""

LIMITS = {
    "keypoints_id_rate": ">= 0.97",
    "keypoints_scans_right": ">= 0.92",
    "confidence_at_90": "0.85 to 0.95",
    "faults_id_rate": ">= 0.98",
    "right_maps_loss": "<= 0.001",
    "dice_change_worst": ">= -0.001",
    "id_rate_anchored": ">= 0.98",
    "id_rate_ribs": ">= 0.98",
    "lumbar_mr_levels_right": ">= 0.95",
    **anatomy_measures.LIMITS,
}


@dataclass(frozen=True, kw_only=True)
class TrueBody:
    """A body of the truth, and what it was named."""

    level: str
    found: bool
    """Whether the detector has a point near it that became a vertebra, or was taken for none."""
    right: bool
    named: VertebraIdentity | None
    """The vertebra nearest to it, if one is near."""


def scored_scan(folder: Path, name: str) -> list[TrueBody]:
    """Name the vertebrae of a scan by the detections alone, and compare them with the truth."""
    chain = found_vertebrae(read_detections(folder / "detected" / f"{name}.json"))
    assert chain is not None
    vertebrae = identities_of(name, chain, decode(chain)).vertebrae
    bodies = []
    for entry in parse_json((folder / "truth" / f"{name}.json").read_text(encoding="utf-8")):
        if entry["type"]["keypoint_type"] != "body":
            continue
        at, level = np.array(entry["coordinates"]["world_space"]), entry["type"]["spine_level"]
        apart = [float(np.linalg.norm(at - each.position_mm)) for each in vertebrae]
        near = [each for each, mm in zip(vertebrae, apart, strict=True) if mm <= NEAR_MM]
        bodies.append(
            TrueBody(
                level=level,
                found=bool((np.linalg.norm(chain.positions_mm - at, axis=1) <= NEAR_MM).any()),
                right=any(each.level == level for each in near),
                named=vertebrae[int(np.argmin(apart))] if near else None,
            )
        )
    return bodies


def keypoint_figures(folder: Path, names: list[str]) -> dict[str, float]:
    """Return the figures of the scans with keypoints."""
    scans = [scored_scan(folder, name) for name in names]
    bodies = [body for scan in scans for body in scan]
    found = [body for body in bodies if body.found]
    unknown = [body for body in found if body.named and body.named.level == UNKNOWN]
    at_90 = [
        body
        for body in found
        if body.named and body.named.level != UNKNOWN and 0.85 <= body.named.confidence <= 0.95
    ]
    return {
        "id_rate": _share([body.right for body in bodies]),
        "id_rate_found": _share([body.right for body in found]),
        "scans_right": _share([all(body.right for body in scan) for scan in scans]),
        "scans_right_found": _share([all(body.right or not body.found for body in scan) for scan in scans]),
        "unknown": len(unknown) / len(found),
        "unknown_wrong": _share(
            [body.named is not None and body.named.likeliest != body.level for body in unknown]
        ),
        "confidence_at_90": _share([body.right for body in at_90]),
    }


def _share(right: list[bool]) -> float:
    return float(np.mean(right)) if right else 0.0


def fault_rows(data: Path, seeds: int) -> tuple[list[tuple[str, bool, int, int, int]], dict[str, float]]:
    """Return, of each map and fault, whether an anchor is in view, the vertebrae, and those right before and
    after; and the loss of Dice on each right map.
    """
    rows, losses = [], {}
    for name, path in MASKS.items():
        volume = read_labels(data / path)
        labels, grid = volume.array[0].astype(np.int16), volume.grid
        losses[name] = 1 - _mean_dice(name_labels(name, labels, grid, VERSE).labels, labels)
        anchored = bool(np.isin([VERSE["C1"], VERSE["sacrum"]], labels).any())
        values = [VERSE[level] for level in COMMON if volume_ml(labels == VERSE[level], grid) > LARGE_ML]
        for seed in range(seeds):
            for fault, faulty in with_faults(labels, grid, seed):
                mended = name_labels(name, faulty, grid, VERSE).labels
                before, after = (
                    sum(int(np.bincount(found[labels == value]).argmax()) == value for value in values)
                    for found in (faulty, mended)
                )
                rows.append((fault, anchored, len(values), before, after))
    return rows, losses


def unnamed_rows(data: Path) -> list[tuple[str, bool, int, int, int]]:
    """Take the names from each map; return whether the sacrum is in view, the vertebrae, and how many of them
    are named right and are unknown.
    """
    rows = []
    for name, path in MASKS.items():
        volume = read_labels(data / path)
        labels, grid = volume.array[0].astype(np.int16), volume.grid
        bones = ((labels >= 1) & (labels <= VERSE["L6"])) | (labels == VERSE["T13"])
        plain = np.where(bones, 1, np.where(np.isin(labels, SACRAL), 4, 0)).astype(np.uint8)
        named, _ = name_unnamed(name, plain, grid, {"vertebra": 1, "sacrum": 4})
        values = [VERSE[level] for level in COMMON if volume_ml(labels == VERSE[level], grid) > LARGE_ML]
        found = [int(np.bincount(named[labels == value]).argmax()) for value in values]
        right = sum(one == value for one, value in zip(found, values, strict=True))
        unknown = sum(one >= FIRST_UNKNOWN for one in found)
        rows.append((name, bool((plain == 4).any()), len(values), right, unknown))
    return rows


def _mean_dice(found: LabelArray, reference: LabelArray) -> float:
    values = [value for value in np.union1d(found, reference).tolist() if 0 < value <= VERSE["T13"]]
    scores = [
        2
        * np.sum((found == value) & (reference == value))
        / np.sum((found == value).astype(int) + (reference == value))
        for value in values
    ]
    return float(np.mean(scores))


def main() -> None:
    """Name, score and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).parents[3] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default, help="folder that holds real/")
    parser.add_argument("--seeds", type=int, default=2, help="draws of the faults for each map")
    parser.add_argument("--lumbar", type=Path, help="model folder of Dataset002_LumbarMR")
    parser.add_argument("--write", type=Path, help="page that gets the tables")
    arguments = parser.parse_args()
    keypoints = arguments.data / "real" / "vertebra_keypoints"
    if not keypoints.is_dir():
        raise SystemExit(f"expected real/vertebra_keypoints in {arguments.data}, found none; use --data")
    names = sorted(path.stem for path in (keypoints / "truth").glob("*.json"))
    tuned, reported = (keypoint_figures(keypoints, half) for half in (names[0::2], names[1::2]))
    rows, losses = fault_rows(arguments.data / "real", arguments.seeds)
    unnamed = unnamed_rows(arguments.data / "real")
    with_sacrum = np.array([row[2:] for row in unnamed if row[1]]).sum(axis=0)
    without = np.array([row[2:] for row in unnamed if not row[1]]).sum(axis=0)
    data = arguments.data / "Dataset002_LumbarMR"
    lumbar = anatomy_lumbar.lumbar_rows(arguments.lumbar, data) if arguments.lumbar else []
    phantoms = anatomy_phantoms.outcomes()
    ribbed, _, _ = anatomy_phantoms.outcomes(ribs=True)
    measured, sizes = anatomy_measures.phantom_errors()
    anchored = np.array([row[2:] for row in rows if row[1]]).sum(axis=0)
    figures = {
        **{f"keypoints_{name}": value for name, value in reported.items() if name != "confidence_at_90"},
        "confidence_at_90": reported["confidence_at_90"],
        "faults_before": anchored[1] / anchored[0],
        "faults_id_rate": anchored[2] / anchored[0],
        "right_maps_loss": max(losses.values()),
        "dice_change_worst": -max(losses.values()),
        **anatomy_phantoms.phantom_figures(*phantoms),
        **anatomy_phantoms.rib_figures(ribbed),
        "unnamed_id_rate": with_sacrum[1] / with_sacrum[0],
        "unnamed_unanchored_wrong": (without[0] - without[1] - without[2]) / without[0],
        **(anatomy_lumbar.lumbar_figures(lumbar) if lumbar else {}),
        **measured,
        "centroid_error_mm": anatomy_measures.centroid_error_mm(arguments.data / "real"),
        **anatomy_measures.large_map(),
    }
    figures = {name: round(float(value), 4) for name, value in figures.items()}
    lines = [
        measured_on(),
        "",
        "| figure | measured | to be |",
        "|---|--:|--:|",
        *(f"| `{name}` | {value:g} | {LIMITS.get(name, '')} |" for name, value in figures.items()),
        "",
        "| keypoints | tuning half | other half |",
        "|---|--:|--:|",
        *(f"| {name} | {tuned[name]:.3f} | {value:.3f} |" for name, value in reported.items()),
        "",
        "| fault | anchor in view | vertebrae | right before | right after |",
        "|---|---|--:|--:|--:|",
    ]
    for fault in dict.fromkeys(row[0] for row in rows):
        for anchor in (True, False):
            n, before, after = np.array([row[2:] for row in rows if row[:2] == (fault, anchor)]).sum(axis=0)
            lines.append(
                f"| {fault} | {'yes' if anchor else 'no'} | {n} | {before / n:.3f} | {after / n:.3f} |"
            )
    lines += [
        "",
        "| map without names | sacrum in view | vertebrae | named right | unknown |",
        "|---|---|--:|--:|--:|",
        *(
            f"| {name} | {'yes' if seen else 'no'} | {n} | {right} | {un} |"
            for name, seen, n, right, un in unnamed
        ),
        "",
        "| phantom: fault | anchor in view | vertebrae | right before | right after | unknown |",
        "|---|---|--:|--:|--:|--:|",
        *anatomy_phantoms.phantom_rows(phantoms[0]),
        "",
        "| phantom with ribs: fault | anchor in view | vertebrae | right before | right after | unknown |",
        "|---|---|--:|--:|--:|--:|",
        *anatomy_phantoms.phantom_rows(ribbed),
        "",
        "| voxels S x P x L, mm | vertebrae | mean error of heights, mm | largest | of endplates' angles, "
        "degrees | of the Cobb angle | of the canal's area |",
        "|---|--:|--:|--:|--:|--:|--:|",
        *sizes,
    ]
    if lumbar:
        lines += [
            "",
            *anatomy_lumbar.case_table("lumbar MR", lumbar),
        ]
    text = "\n".join(lines)
    if arguments.write:
        write_measured(arguments.write, text)
    print(text)  # noqa: T201 (a script's result)
    print(json.dumps(figures))  # noqa: T201


if __name__ == "__main__":
    main()
