import numpy as np
import pytest

from autospine.core.errors import TrainingError
from autospine.data.sampling import Sampler, patch_rng


def test_sites_depend_on_seed_step_and_index_alone(cases):
    sampler = Sampler(cases, (16, 16, 16), 0.5)
    site = sampler.draw(patch_rng(1, 2, 3))
    sampler.draw(patch_rng(1, 2, 4))
    assert sampler.draw(patch_rng(1, 2, 3)) == site
    others = [sampler.draw(patch_rng(*key)) for key in ((2, 2, 3), (1, 3, 3), (1, 2, 0))]
    assert any(other != site for other in others)


def test_classes_are_drawn_evenly_and_hit(cases):
    sampler = Sampler(cases, (8, 8, 8), 1.0)
    hits = np.zeros(4)
    for step in range(300):
        site = sampler.draw(patch_rng(0, step, 0))
        _, labels = cases[site.case].read_all()
        inside = labels[tuple(slice(max(a, 0), a + 8) for a in site.start)]
        present = [label for label in (1, 2, 3) if (inside == label).any()]
        assert len(present) == 1
        hits[present[0]] += 1
    assert hits[1:] == pytest.approx([100, 100, 100], abs=30)


def test_the_fraction_of_foreground_patches(cases):
    single = (cases[1], cases[2])  # foreground patches come from the first of them alone
    sampler = Sampler(single, (8, 8, 8), 0.6)
    drawn = [sampler.draw(patch_rng(0, step, 0)).case for step in range(1000)]
    assert drawn.count(0) / 1000 == pytest.approx(0.6 + 0.4 / 2, abs=0.05)


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_patches_lie_inside_where_they_can(cases, fraction):
    size = (16, 16, 16)
    sampler = Sampler(cases, size, fraction)
    seen = set()
    for step in range(200):
        site = sampler.draw(patch_rng(0, step, 0))
        seen.add(site.case)
        for start, n, extent in zip(site.start, size, cases[site.case].shape, strict=True):
            assert min(0, extent - n) <= start <= max(0, extent - n)
    assert seen == ({0, 1} if fraction else {0, 1, 2})


def test_a_dataset_without_foreground_can_be_sampled(cases):
    site = Sampler(cases[2:], (8, 8, 8), 1.0).draw(patch_rng(0, 0, 0))
    assert site.case == 0


def test_no_case_is_an_error():
    with pytest.raises(TrainingError, match="at least one"):
        Sampler((), (8, 8, 8), 0.5)
