import numpy as np
import pytest
from unit.phantom.drawing import a_skeleton, a_spine, depth, tissue

from autospine.phantom.head import paint_cavities, with_head
from autospine.phantom.shapes import FAR_MM
from autospine.phantom.skeleton import Skeleton, paint_vertebrae
from autospine.phantom.skull import head_frame, head_scale, paint_skull
from autospine.phantom.soft_tissue import space_around

SPINE = a_spine(1)
FRAME, K = head_frame(SPINE), head_scale(SPINE)


def place(x: float, y: float, z: float) -> np.ndarray:
    return FRAME.to_world((x * K, y * K, z * K))


@pytest.fixture(scope="module")
def head() -> Skeleton:
    centre = place(0, 0, 45)
    skeleton = a_skeleton(SPINE, (centre[0], centre[1], centre[2]), (260.0, 250.0, 180.0), 2.0)
    paint_vertebrae(skeleton, SPINE)
    before = skeleton.labels.copy()
    rng = np.random.default_rng(3)
    paint_skull(skeleton, SPINE, rng)
    paint_cavities(skeleton, SPINE, rng)
    assert np.array_equal(before, skeleton.labels)
    return skeleton


def test_bones_of_the_head_are_where_they_belong(head: Skeleton) -> None:
    vault, chin, angle, tooth = (0, -3, 146), (0, -94, -50), (48, -27, -20), (22, -85, -10)
    assert max(depth(head, place(*where)) for where in (vault, chin, angle, tooth)) < 0
    assert tissue(head, place(0, 0, 90)) == "brain"


def test_the_skull_leaves_the_canal_and_the_atlas_alone(head: Skeleton) -> None:
    assert depth(head, place(0, 14, 14)) > 3
    condyle, mass = place(19, 2, 14), SPINE.vertebrae[0].frame.to_world((18.0, 3.0, 0.0))
    way = [depth(head, condyle + share * (mass - condyle)) for share in np.linspace(0, 1, 12)]
    assert way[0] < 0
    assert way[-1] < 0
    assert max(way) > -0.6


def test_nose_and_throat_hold_air(head: Skeleton) -> None:
    assert tissue(head, place(7.5, -62, 19)) == "gas"
    assert tissue(head, place(0, -30, 6)) == "gas"


def test_the_skin_lies_around_the_bones(head: Skeleton) -> None:
    picture = head.picture
    space = space_around(picture, SPINE)
    skin = with_head(picture.raster, space, SPINE, np.full(picture.raster.shape, FAR_MM, np.float32))
    above = space.z > space.levels["C1"] + 30
    assert np.mean(skin[above & (head.bone < 0)] < -0.5) > 0.985
