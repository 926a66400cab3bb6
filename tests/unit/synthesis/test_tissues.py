import pytest

from autospine.synthesis.tissues import CODES, TISSUES, tissue_of


@pytest.mark.parametrize(
    ("structure", "tissue"),
    [
        ("vertebrae_L1", "marrow_L"),
        ("vertebrae_C5", "marrow_C"),
        ("T12", "marrow_T"),
        ("rib_left_3", "marrow_T"),
        ("hip_right", "marrow_S"),
        ("sacrum", "marrow_S"),
        ("skull", "marrow_C"),
        ("spinal_cord", "cord"),
        ("spinal_canal", "csf"),
        ("lung_upper_lobe_left", "lung"),
        ("inferior_vena_cava", "blood"),
        ("autochthon_left", "muscle"),
        ("costal_cartilages", "cartilage"),
        ("urinary_bladder", "fluid"),
        ("disc_below_L3", "annulus"),
        ("marrow_T", "marrow_T"),
        ("gadget", None),
    ],
)
def test_structures_are_drawn_as_the_tissue_they_are_made_of(structure: str, tissue: str | None) -> None:
    assert tissue_of(structure) == tissue


def test_tissues_lie_in_the_ranges_of_their_images() -> None:
    assert len(CODES) == len(TISSUES) < 256
    assert CODES["air"] == 0
    for tissue in TISSUES.values():
        assert -1000 <= tissue.hu <= 5000
        assert min(tissue.t1, tissue.t2) >= 0 and max(tissue.t1, tissue.t2) <= 1.3
        assert 0 <= tissue.fat <= 1
