import numpy as np
from unit.phantom.drawing import a_skeleton, a_spine, tissue

from autospine.phantom.body import sample_build
from autospine.phantom.foreign_objects import paint_tubes
from autospine.phantom.implants import Implant, draw_metal, sample_implants
from autospine.phantom.pelvis import HIP_JOINT, pelvis_frame
from autospine.phantom.skeleton import Skeleton
from autospine.phantom.soft_tissue import Stage, space_around
from autospine.synthesis.tissues import CODES

SPINE = a_spine(5)
K = SPINE.scale
BUILD = sample_build(np.random.default_rng(1))
LEFT_HIP = pelvis_frame(SPINE).to_world(tuple(value * K for value in HIP_JOINT))


def around(place: np.ndarray, size_mm: float = 120.0) -> Skeleton:
    return a_skeleton(SPINE, tuple(float(value) for value in place), (size_mm,) * 3, 2.0)


def drawn(*, metal: bool | None, seeds: int) -> list[list[Implant]]:
    space = space_around(around(LEFT_HIP, 40.0).picture, SPINE)
    return [
        sample_implants(SPINE, space, BUILD, np.random.default_rng(seed), metal=metal)
        for seed in range(seeds)
    ]


def test_metal_is_there_as_it_is_asked_for() -> None:
    assert not any(drawn(metal=False, seeds=60))
    assert all(drawn(metal=True, seeds=60))
    share = np.mean([bool(implants) for implants in drawn(metal=None, seeds=300)])
    assert 0.2 < share < 0.6


def test_a_hip_replaces_head_and_socket() -> None:
    hips = [i for implants in drawn(metal=None, seeds=200) for i in implants if i.liner is not None]
    # Both sides occur, each in some 4 of a hundred.
    assert 4 <= len(hips) <= 40
    skeleton = around(LEFT_HIP)
    metal = draw_metal(skeleton.picture, hips)
    assert metal is not None
    skeleton.picture.paint("metal", metal, skeleton.picture.raster.everywhere())
    assert tissue(skeleton, LEFT_HIP) == "metal"
    assert tissue(skeleton, LEFT_HIP + np.array([0.0, 19.5 * K, 0.0])) == "cartilage"
    assert tissue(skeleton, LEFT_HIP + np.array([-25.5 * K, 0.0, 2.0])) == "metal"


def test_screws_lie_in_their_vertebrae() -> None:
    implants = drawn(metal=True, seeds=1)[0]
    frames = [i.frame for i in implants if any(i.frame is v.frame for v in SPINE.vertebrae)]
    assert len(frames) >= 2
    for frame in frames[:2]:
        metal = draw_metal(around(frame.origin_mm).picture, implants)
        assert metal is not None
        assert np.sum(metal < 0) * 8 > 400


def test_some_bodies_have_tubes() -> None:
    count = 0
    for seed in range(60):
        skeleton = a_skeleton(SPINE, (0.0, -40.0, 420.0), (260.0, 160.0, 200.0), 5.0)
        picture = skeleton.picture
        stage = Stage(picture=picture, space=space_around(picture, SPINE), ragged=picture.cloud)
        paint_tubes(stage, np.random.default_rng(seed))
        count += bool(np.any(picture.mixture.second == CODES["catheter"]) or np.any(picture.mixture.first))
    assert 3 <= count <= 25
