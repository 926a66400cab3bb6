import math
from pathlib import Path

import numpy as np
import pytest

from autospine.evaluation.components import number_components
from autospine.evaluation.instances import match_instances, small_recall
from autospine.io.images import read_labels

SHAPE = (4, 4, 40)


def blocks(*spans: tuple[int, int]) -> np.ndarray:
    """Instances one after the other along the last axis, numbered from 1 on."""
    numbers = np.zeros(SHAPE, dtype=np.uint16)
    for number, (start, stop) in enumerate(spans, start=1):
        numbers[:, :, start:stop] = number
    return numbers


def test_two_found_one_missed_and_one_too_many():
    """IoU 1 and 0.9; the third has none; the fourth has nothing of the reference."""
    reference = blocks((0, 10), (11, 21), (22, 24))
    prediction = blocks((30, 33), (12, 21), (0, 10))
    found = match_instances(prediction, reference)
    assert (found.predicted, found.present, sorted(found.ious)) == (3, 3, [0.9, 1.0])
    assert found.recognition == pytest.approx(2 / 3)
    assert found.segmentation == pytest.approx(0.95)
    assert found.panoptic == pytest.approx(0.95 * 2 / 3)


def test_half_is_not_enough():
    """The two halves of an instance cannot both be the instance."""
    found = match_instances(blocks((0, 5), (5, 10)), blocks((0, 10)))
    assert (found.recognition, found.panoptic) == (0, 0)
    assert math.isnan(found.segmentation)


def test_no_instances():
    none, some = blocks(), blocks((1, 2))
    for pair in ((none, some), (some, none)):
        found = match_instances(*pair)
        assert (found.recognition, found.panoptic) == (0, 0)
        assert math.isnan(found.segmentation)
    nothing = match_instances(none, none)
    assert all(math.isnan(value) for value in (nothing.recognition, nothing.segmentation, nothing.panoptic))


def test_each_small_structure_counts_the_same():
    """Of 192 mm³ nothing is found, of 32 mm³ everything, of 64 mm³ a quarter."""
    reference = blocks((0, 12), (20, 22), (30, 34))
    prediction = np.zeros(SHAPE, dtype=bool)
    prediction[:, :, 20:22] = prediction[:, :, 30:31] = True
    spacing = (1.0, 1.0, 1.0)
    assert small_recall(prediction, reference, spacing, largest_mm3=64) == pytest.approx((1 + 1 / 4) / 2)
    assert small_recall(prediction, reference, spacing, largest_mm3=63) == 1
    assert small_recall(prediction, reference, spacing) == pytest.approx((0 + 1 + 1 / 4) / 3)
    assert math.isnan(small_recall(prediction, reference, (1.0, 1.0, 100.0)))
    assert math.isnan(small_recall(prediction, blocks(), spacing))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("kind", "instances", "true_positives", "segmentation"),
    [
        ("semantic", (89, 87), 73, 0.7940127477906024),
        ("unmatched_instance", (22, 22), 19, 0.8328184295330797),
        ("matched_instance", (22, 22), 19, 0.8328184295330798),
    ],
)
def test_the_published_example_of_panoptica(real_data: Path, kind, instances, true_positives, segmentation):
    """The figures of its tutorials for a lumbar MR (github.com/BrainLesion/tutorials, panoptica/)."""
    folder = real_data / "real" / "metrics_pair_mr"
    maps = [read_labels(folder / f"{kind}_{which}.nii.gz").array[0] for which in ("pred", "ref")]
    if kind == "semantic":
        maps = [number_components(each) for each in maps]
    found = match_instances(*maps)
    assert ((found.predicted, found.present), found.ious.size) == (instances, true_positives)
    assert found.recognition == pytest.approx(2 * true_positives / sum(instances))
    assert found.segmentation == pytest.approx(segmentation, abs=1e-3)
    assert found.panoptic == pytest.approx(found.recognition * segmentation, abs=1e-3)
