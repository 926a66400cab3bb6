import dataclasses

import numpy as np
from unit.phantom.drawing import a_skeleton, a_spine

from autospine.phantom.body import sample_build
from autospine.phantom.gut import paint_gut
from autospine.phantom.soft_tissue import Stage, space_around
from autospine.synthesis.tissues import CODES

SPINE = a_spine(6)


def shares(seed: int) -> dict[str, float]:
    """Return the share of a belly that each kind of content takes."""
    skeleton = a_skeleton(SPINE, (0.0, -70.0, 60.0), (260.0, 120.0, 240.0), 8.0)
    picture = skeleton.picture
    stage = Stage(picture=picture, space=space_around(picture, SPINE), ragged=picture.cloud)
    build = dataclasses.replace(sample_build(np.random.default_rng(0)), seed=seed)
    paint_gut(stage, np.full(picture.raster.shape, -30.0, dtype=np.float32), build)
    first = np.where(picture.mixture.share > 0.5, picture.mixture.second, picture.mixture.first)
    return {name: float(np.mean(first == CODES[name])) for name in ("wall", "bowel", "gas", "contrast_agent")}


def test_bowel_holds_stool_and_gas_and_in_some_bodies_contrast_agent() -> None:
    bodies = [shares(seed) for seed in range(10)]
    assert all(body["bowel"] + body["contrast_agent"] > 0.1 and body["gas"] > 0.001 for body in bodies)
    with_contrast = sum(body["contrast_agent"] > 0.02 for body in bodies)
    assert 1 <= with_contrast <= 6
