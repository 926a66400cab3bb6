"""Stomach, small bowel and colon: wall, contents, gas, and in some bodies a contrast agent that was drunk.

Positions are relative to the line through the vertebral bodies: u left, v posterior, z superior (LPS), in mm.
"""

import numpy as np

from autospine.phantom.shapes import Field
from autospine.phantom.soft_tissue import Build, Stage

_LOOPS = 150
_SHARE_WITH_CONTRAST = 0.18


def paint_gut(stage: Stage, inside: Field, build: Build) -> None:
    """Paint loops of bowel in front of the great vessels, the colon around them, and the stomach."""
    space = stage.space
    rng = np.random.default_rng(build.seed)
    k, z = build.girth, space.levels
    contrast = rng.random() < _SHARE_WITH_CONTRAST
    # Drawn for the whole belly whatever the field of view, so that a crop of a phantom shows the same body.
    for _ in range(_LOOPS):
        centre = (
            float(rng.uniform(-90, 90)) * k,
            float(rng.uniform(-124, -46)) * k,
            float(rng.uniform(-105, z["T12"] + 10)),
        )
        radii = (float(rng.uniform(12, 28)), float(rng.uniform(9, 16)), float(rng.uniform(11, 30)))
        filled = "contrast_agent" if contrast and rng.random() < 0.6 else "bowel"
        stage.organ([("wall", 0), (filled, 2.2)], centre, radii, inside)
        if rng.random() < 0.3:
            bubble = (0.72 * radii[0], 0.45 * radii[1], 0.72 * radii[2])
            stage.organ([("gas", 0)], (centre[0], centre[1] - 0.35 * radii[1], centre[2]), bubble, inside)
    _colon(stage, inside, k, gas=float(rng.uniform(0.0, 1.4)), filled=contrast and rng.random() < 0.4)
    content = "contrast_agent" if contrast and rng.random() < 0.7 else "bowel"
    full = float(rng.uniform(0.6, 1.1))
    stage.organ(
        [("wall", 0), (content, 3)],
        (58 * k, -70, z["T11"] + 4),
        (46 * k * full, 46 * full, 44 * full),
        inside,
    )
    stage.organ([("gas", 0)], (60 * k, -92, z["T11"] + 12), (26 * k * full, 14, 26 * full), inside)


def _colon(stage: Stage, inside: Field, k: float, *, gas: float, filled: bool) -> None:
    """Paint the colon from the right side over the belly to the left side: wall, with stool or gas."""
    z = stage.space.levels
    line = (
        (-76 * k, -62 * k, z["S"] - 14, 25),
        (-86 * k, -46 * k, z["L3"], 23),
        (-82 * k, -52 * k, z["L1"] - 8, 21),
        (-40 * k, -104 * k, z["L2"], 20),
        (24 * k, -112 * k, z["L3"], 19),
        (72 * k, -74 * k, z["L1"], 18),
        (92 * k, -22 * k, z["T12"] - 6, 18),
        (96 * k, -18 * k, z["L3"], 16),
        (88 * k, -44 * k, z["S"], 16),
        (44 * k, -48 * k, z["brim"], 16),
        (6 * k, -18 * k, z["brim"] + 12, 14),
    )
    content = "contrast_agent" if filled else "bowel"
    stage.rod([("wall", 0.0), (content, 2.6)], line, within=inside)
    # Haustra: gas gathers where the coarse texture says so.
    lumen = tuple((u, v - 3, height, radius - 5) for u, v, height, radius in line)
    pockets = np.maximum(
        inside + np.float32(5), np.float32(6) * (np.float32(1.0 - gas) - stage.picture.cloud)
    )
    stage.rod([("gas", 0.0)], lumen, within=pockets)
