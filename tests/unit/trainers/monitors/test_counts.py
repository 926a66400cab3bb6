import numpy as np
import pytest
import torch

from autospine.core.labels import IGNORE_INDEX, parse_labels
from trainers.label_targets import LabelTargets
from trainers.monitors.counts import PatchCounts, add

PLAIN = LabelTargets(parse_labels({"background": 0, "bone": 3, "canal": 7}))
REGIONS = LabelTargets(parse_labels({"background": 0, "spine": [3, 7], "canal": [7]}, [3, 7]))


def one_hot(indices: torch.Tensor, channels: int) -> torch.Tensor:
    """Logits of a sure prediction."""
    return torch.nn.functional.one_hot(indices.long(), channels).movedim(-1, 0).float()


def block(start: int = 2, stop: int = 6) -> torch.Tensor:
    """A box of bone, 4 x 4 x 2, with canal behind it, 1 x 4 x 2."""
    labels = torch.zeros(10, 12, 8, dtype=torch.uint8)
    labels[start:stop, 3:7, 3:5] = 1
    labels[stop, 3:7, 3:5] = 2
    return labels


def test_a_true_prediction_agrees_everywhere():
    counts = PLAIN.count(one_hot(block(), 3), block())
    assert counts.true.tolist() == counts.predicted.tolist() == counts.overlap.tolist() == [32, 8]
    assert counts.foreground == (40, 40)
    assert counts.border[1:] == (0, 0)
    assert counts.dice.tolist() == [1, 1]


def test_faces_and_chords_are_those_of_a_box():
    counts = PLAIN.count(one_hot(block(), 3), block())
    # Across S the box of bone shows 4 x 2 voxels at both ends, across P 4 x 2, across L 4 x 4.
    assert counts.faces.tolist() == [[16, 16, 32], [16, 4, 8]]
    assert counts.chords().tolist() == [[4, 4, 2], [1, 4, 2]]
    assert counts.border[0] == 16 + 20 + 40


def test_a_prediction_grown_by_a_voxel_is_a_voxel_too_far_out():
    labels = torch.zeros(16, 16, 16, dtype=torch.uint8)
    labels[5:11, :, :] = 1
    grown = labels.clone()
    grown[4:12] = 1
    counts = PLAIN.count(one_hot(grown, 3), labels)
    faces, over, under = counts.border
    assert (over / faces, under) == (1, 0)
    faces, over, under = PLAIN.count(one_hot(labels, 3), grown).border
    assert (over, under / faces) == (0, 1)


def test_what_is_far_from_the_border_is_no_edge():
    labels = torch.zeros(20, 8, 8, dtype=torch.uint8)
    labels[2:5] = 1
    blob = labels.clone()
    blob[10:14] = 1
    counts = PLAIN.count(one_hot(blob, 3), labels)
    assert counts.foreground == (3 * 64, 7 * 64)
    assert counts.border[1:] == (0, 0)


def test_ignored_voxels_count_nowhere():
    labels = block()
    labels[:, 5:] = IGNORE_INDEX
    counts = PLAIN.count(one_hot(block() + torch.tensor(0, dtype=torch.uint8), 3), labels)
    assert counts.true.tolist() == counts.predicted.tolist() == counts.overlap.tolist() == [16, 4]
    assert counts.faces.tolist() == [[8, 8, 16], [8, 2, 4]]


def test_overlapping_regions_are_counted_one_by_one():
    labels = block()
    logits = torch.stack([(labels > 0).float(), (labels == 2).float()]) - 0.5
    logits[1] = -1
    counts = REGIONS.count(logits, labels)
    assert counts.true.tolist() == [40, 8]
    assert counts.predicted.tolist() == [40, 0]
    assert counts.overlap.tolist() == [40, 0]
    assert counts.dice.tolist() == [1, 0]
    assert counts.faces[0].tolist() == [16, 20, 40]


def test_against_a_count_voxel_by_voxel():
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 3, (7, 6, 5)).astype(np.uint8))
    labels[rng.random(labels.shape) < 0.1] = IGNORE_INDEX
    logits = torch.from_numpy(rng.normal(size=(3, 7, 6, 5)).astype(np.float32))
    counts = PLAIN.count(logits, labels)
    true, shown = labels.numpy(), logits.argmax(0).numpy()
    known = true != IGNORE_INDEX
    for place, index in enumerate((1, 2)):
        assert counts.true[place] == (true == index).sum()
        assert counts.predicted[place] == ((shown == index) & known).sum()
        assert counts.overlap[place] == ((shown == index) & (true == index)).sum()
        for axis in range(3):
            a, b = (np.moveaxis(true, axis, 0)[cut] for cut in (slice(None, -1), slice(1, None)))
            both = (a != IGNORE_INDEX) & (b != IGNORE_INDEX)
            assert counts.faces[place, axis] == (((a == index) != (b == index)) & both).sum()


def test_counts_add_up():
    one = PLAIN.count(one_hot(block(), 3), block())
    two = PLAIN.count(torch.zeros(3, 10, 12, 8), block(1, 5))
    both = add([one, two])
    assert both.true.tolist() == [64, 16]
    assert both.foreground == (80, 40)
    assert both.border[0] == one.border[0] + two.border[0]


@pytest.mark.filterwarnings("error")
def test_classes_that_do_not_occur_have_no_dice_and_no_thickness():
    nothing = PatchCounts(
        true=np.zeros(1, np.int64),
        predicted=np.zeros(1, np.int64),
        overlap=np.zeros(1, np.int64),
        faces=np.zeros((1, 3), np.int64),
        foreground=(0, 0),
        border=(0, 0, 0),
    )
    assert np.isnan(nothing.dice).all()
    assert np.isnan(nothing.chords()).all()
