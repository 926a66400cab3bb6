import makers
import numpy as np

from autospine.report.case_views import CaseMaps
from autospine.report.case_volumes import (
    ALL_VOLUMES_BYTES,
    CASE_VOLUMES_BYTES,
    reduce_volumes,
    volume_budget,
)


def noise(image: bool = True) -> CaseMaps:
    """An image that cannot be packed, and a label in its middle."""
    grey = np.random.default_rng(0).integers(-500, 900, (60, 60, 60)).astype(np.int16)
    labels = np.zeros(grey.shape, dtype=np.uint8)
    labels[20:40, 20:40, 20:40] = 1
    return CaseMaps(
        image=grey if image else None,
        prediction=labels,
        reference=labels,
        grid=makers.grid(labels.shape, (1.0, 1.0, 1.0)),
    )


def test_voxels_grow_until_a_volume_fits():
    large, small = (reduce_volumes(noise(), "CT", budget) for budget in (200_000, 20_000))
    assert large is not None
    assert small is not None
    assert "voxels of 2 × 2 × 2 mm" in large.note
    assert "voxels of 3 × 3 × 3 mm" in small.note
    assert len(small.image) + len(small.prediction) + len(small.reference) <= 20_000


def test_what_does_not_fit_or_has_no_image_is_left_out():
    assert reduce_volumes(noise(), "CT", 1000) is None
    assert reduce_volumes(noise(image=False), "CT", 200_000) is None


def test_many_cases_share_what_a_page_may_have():
    assert volume_budget(1) == CASE_VOLUMES_BYTES
    assert volume_budget(1000) == ALL_VOLUMES_BYTES // 1000
