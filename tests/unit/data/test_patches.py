import numpy as np
import pytest

from autospine.core.errors import FormatError
from autospine.data.patches import PatchSource
from autospine.data.sampling import Sampler, patch_rng


def source_of(cases, configuration, cache_bytes=0, **options):
    return PatchSource(cases, configuration, seed=7, cache_bytes=cache_bytes, **options)


@pytest.mark.parametrize("augment", [True, False])
def test_without_changes_a_patch_is_an_exact_part(cases, plain, configure, augment):
    configuration = plain() if augment else configure()
    source = source_of(cases, configuration, augment=augment)
    sampler = Sampler(cases, (16, 16, 16), 0.5)
    for step in range(20):
        image, labels, name = source.patch(step, 1)
        site = sampler.draw(patch_rng(7, step, 1))
        case = cases[site.case]
        assert name == case.name
        if case.name == "small":
            continue
        part = tuple(slice(a, a + 16) for a in site.start)
        whole, whole_labels = case.read_all()
        np.testing.assert_array_equal(image, whole[(slice(None), *part)])
        np.testing.assert_array_equal(labels, whole_labels[part])


def test_batches_are_repeatable_and_differ(cases, configure):
    source = source_of(cases, configure())
    batch = source.batch(3)
    assert batch.images.shape == (2, 1, 16, 16, 16)
    assert batch.labels.shape == (2, 16, 16, 16)
    assert len(batch.cases) == 2
    again = source_of(cases, configure(), cache_bytes=10**9).batch(3)
    assert batch.images.equal(again.images)
    assert batch.labels.equal(again.labels)
    assert not batch.images.equal(source.batch(4).images)


def test_labels_are_never_invented(cases, configure):
    source = source_of(cases, configure(spatial_probability=1.0))
    for step in range(20):
        batch = source.batch(step)
        assert set(batch.labels.unique().tolist()) <= {0, 1, 2, 3}
        assert batch.images.isfinite().all()


def test_only_what_fits_is_kept_in_memory(cases, configure):
    small, total = min(case.nbytes for case in cases), sum(case.nbytes for case in cases)
    for limit, kept in ((0, 0), (small, 1), (total - 1, 2), (total, 3)):
        source = source_of(cases, configure(), cache_bytes=limit)
        for step in range(12):
            source.batch(step)
        assert sum(isinstance(case._open.get("image"), np.ndarray) for case in source._cases) == kept


def test_errors_name_the_case(cases, configure):
    path = cases[2].folder / "empty_image.b2nd"
    path.write_bytes(b"damaged")
    source = source_of(cases[2:], configure())
    with pytest.raises(FormatError, match="case empty") as caught:
        source.batch(0)
    assert any("case empty" in note for note in caught.value.__notes__)
