from dataclasses import replace

import makers
import pytest
import torch

from autospine.core.errors import ModelError
from autospine.core.labels import parse_labels
from autospine.inference.ensemble import mean_probabilities
from autospine.inference.mirror import mirrored_channels, with_mirror
from planners import rules

PAIRED = {"background": 0, "facet_left": 1, "body": 2, "facet_right": 3}
REGIONS = {"background": 0, "all": [1, 2, 3], "facet_left": [1], "facet_right": [3]}
ORDER = [2, 1, 3]


def mirroring(names, order=None):
    """A label space, and the augmentation that the planner chooses for it."""
    labels = parse_labels(names, order)
    axes, pairs, _ = rules.mirroring(labels)
    return labels, replace(makers.configuration().augmentation, mirror_axes=axes, mirror_pairs=pairs)


@pytest.mark.parametrize(
    ("names", "order", "expected"),
    [
        (PAIRED, None, [0, 3, 2, 1]),
        (REGIONS, ORDER, [0, 2, 1]),
        ({"background": 0, "L1": 1, "L2": 2}, None, [0, 1, 2]),
    ],
)
def test_side_specific_channels_change_places(names, order, expected):
    assert mirrored_channels(*mirroring(names, order)) == expected


@pytest.mark.parametrize(("names", "order"), [(PAIRED, None), (REGIONS, ORDER)])
def test_with_mirrored_views_the_mirror_image_has_the_mirrored_scores(names, order):
    labels, strength = mirroring(names, order)
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, labels.n_channels, 3, padding=1)
    views = with_mirror([network], labels, strength)
    tile = torch.randn(1, 1, 6, 5, 8)
    scores, of_mirror = (
        mean_probabilities(one, views, regions=labels.regions) for one in (tile, tile.flip(-1))
    )
    channels = mirrored_channels(labels, strength)
    torch.testing.assert_close(of_mirror, scores[:, channels].flip(-1))
    alone = mean_probabilities(tile, [network], regions=labels.regions)
    assert not torch.allclose(alone, scores, atol=1e-3)


def test_every_network_has_its_mirrored_view():
    networks = [torch.nn.Conv3d(1, 4, 1) for _ in range(3)]
    views = with_mirror(networks, *mirroring(PAIRED))
    assert views[::2] == networks
    assert [view.network for view in views[1::2]] == networks


def test_a_model_that_was_not_trained_so_is_refused():
    labels, strength = mirroring({"background": 0, "facet_left": 1, "body": 2})
    assert strength.mirror_axes == ()
    with pytest.raises(ModelError, match="expected a model that was trained with left and right mirrored"):
        with_mirror([torch.nn.Conv3d(1, 3, 1)], labels, strength)


def test_regions_without_a_counterpart_are_refused():
    _, strength = mirroring(PAIRED)
    strange = parse_labels({"background": 0, "some": [1, 2], "right": [3]}, [1, 3])
    with pytest.raises(ModelError, match="leave --mirror out"):
        with_mirror([torch.nn.Conv3d(1, 2, 1)], strange, strength)
