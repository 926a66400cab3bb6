import numpy as np
import pytest
from scipy import ndimage
from unit.phantom.drawing import a_skeleton, a_spine, depth

from autospine.phantom.pelvis import HIP_JOINT, paint_pelvis, pelvis_frame
from autospine.phantom.sacrum import sacral_segments
from autospine.phantom.skeleton import Skeleton, paint_sacrum

SPINE = a_spine()
PLACES = [(side * 88.0, *HIP_JOINT[1:]) for side in (1, -1)]


@pytest.fixture(scope="module")
def pelvis() -> Skeleton:
    skeleton = a_skeleton(SPINE, (0.0, -10.0, -130.0), (360.0, 260.0, 330.0))
    paint_sacrum(skeleton, sacral_segments(SPINE))
    skeleton.labels[:] = 0
    paint_pelvis(skeleton, SPINE, sacral_segments(SPINE))
    return skeleton


def test_none_of_it_is_labelled(pelvis: Skeleton) -> None:
    assert not pelvis.labels.any()


def test_the_heads_of_the_femora_lie_in_their_sockets(pelvis: Skeleton) -> None:
    frame, k = pelvis_frame(SPINE), SPINE.scale
    for x, y, z in PLACES:
        assert depth(pelvis, frame.to_world((x * k, y * k, z * k))) < -15
        # Towards the middle a joint's gap, then the floor of the socket.
        inwards = [
            depth(pelvis, frame.to_world(((x - np.sign(x) * way) * k, y * k, z * k))) for way in range(20, 36)
        ]
        gap = int(np.argmax(inwards))
        assert inwards[gap] > 0
        assert min(inwards[gap:]) < 0


def test_wings_pubis_and_shafts_are_where_they_belong(pelvis: Skeleton) -> None:
    frame, k = pelvis_frame(SPINE), SPINE.scale
    for x, y, z in ((113, -20, -18), (9, -72, -146), (64, 9, -150), (122, -25, -250)):
        for side in (1, -1):
            assert depth(pelvis, frame.to_world((side * x * k, y * k, z * k))) < 0, (x, y, z)


def test_the_two_femora_touch_nothing(pelvis: Skeleton) -> None:
    pieces, _ = ndimage.label(pelvis.bone < 0)
    sizes = np.sort(np.bincount(pieces.ravel())[1:])[::-1] * 2.5**3 / 1000
    # Two femora, two hip bones and the sacrum, 150 to 350 ml each.
    assert np.all((sizes[:5] > 90) & (sizes[:5] < 400))
