import numpy as np
import pytest
from unit.phantom.drawing import a_skeleton, a_spine, depth

from autospine.phantom.body import paint_body, sample_build
from autospine.phantom.rib_cage import Cage, draw_cage, paint_rib_cage
from autospine.phantom.shoulders import paint_shoulders
from autospine.phantom.skeleton import Skeleton, paint_vertebrae
from autospine.phantom.soft_tissue import Build, Space, space_around
from autospine.synthesis.tissues import CODES

SPINE = a_spine(2)
BUILD = sample_build(np.random.default_rng(0))


@pytest.fixture(scope="module")
def chest() -> tuple[Skeleton, Space, Cage, Build]:
    middle = SPINE.vertebrae[13].frame.origin_mm
    skeleton = a_skeleton(SPINE, (0.0, float(middle[1]) - 30, float(middle[2])), (420.0, 330.0, 460.0), 3.5)
    space = space_around(skeleton.picture, SPINE)
    cage = draw_cage(space, SPINE, BUILD)
    assert cage is not None
    paint_body(skeleton.picture, space, SPINE, BUILD, cage)
    paint_vertebrae(skeleton, SPINE)
    before = skeleton.labels.copy()
    paint_rib_cage(skeleton, space, SPINE, cage, 0.5)
    paint_shoulders(skeleton, space, SPINE, BUILD)
    assert np.array_equal(before, skeleton.labels)
    return skeleton, space, cage, BUILD


def test_a_dozen_ribs_cross_the_side_of_the_chest(chest: tuple[Skeleton, Space, Cage, Build]) -> None:
    skeleton, _, cage, _ = chest
    side = (np.abs(cage.angle - 1.0) < 0.08) & (np.abs(cage.distance) < 2)
    for half in (np.s_[:, :, :60], np.s_[:, :, 70:]):
        crossed = ((skeleton.bone < 0) & side)[half].any(axis=(1, 2))
        starts = np.count_nonzero(np.diff(crossed.astype(int)) == 1)
        assert 9 <= starts <= 13


def test_the_sternum_lies_in_front_and_the_shoulder_blades_behind(
    chest: tuple[Skeleton, Space, Cage, Build],
) -> None:
    skeleton, space, cage, _ = chest
    bone = skeleton.bone < 0
    front = bone & (np.abs(space.u) < 8) & (space.v < -50) & (space.z < cage.top_mm)
    assert 0.75 < np.ptp(space.z[front]) / cage.length_mm < 1.4
    blades = bone & (np.abs(space.u) > 75) & (np.abs(space.u) < 120) & (cage.distance > 5) & (space.v > 20)
    assert 90 < np.ptp(space.z[blades]) < 220


def test_ribs_hold_lungs_and_lie_within_the_body(chest: tuple[Skeleton, Space, Cage, Build]) -> None:
    skeleton, _, cage, _ = chest
    mixture = skeleton.picture.mixture
    tissue = np.where(mixture.share > 0.5, mixture.second, mixture.first)
    lung = tissue == CODES["lung"]
    assert 2.0 < lung.sum() * 3.5**3 / 1e6 < 7.0
    assert cage.distance[lung].max() < 3
    assert not np.any((skeleton.bone < 0) & (tissue == CODES["air"]))
    assert np.mean(tissue[skeleton.bone < 3] == CODES["air"]) < 0.01


def test_the_heads_of_the_humeri_are_beside_the_blades(chest: tuple[Skeleton, Space, Cage, Build]) -> None:
    skeleton, space, _, build = chest
    k = SPINE.scale * (0.85 + 0.15 * build.girth)
    x, y, z = (163, 4, -12) if build.arms == "down" else (154, 2, -2)
    for side in (1, -1):
        place = space.world((0.0, 0.0, space.levels["T2"])).to_world((side * x * k, y * k, z * k))
        assert depth(skeleton, place) < -8
