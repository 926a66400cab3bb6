"""Image files as they come: every sound form gives the same volume, and what is not sound is refused."""

import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from odd_images import ORIGIN, REFUSED, SHAPE, SOUND, SPACING, VOXELS, nifti, put

from autospine.core.errors import ImageError
from autospine.core.geometry import Grid, difference
from autospine.io.images import read_channel, read_volume
from autospine.io.in_memory import as_volume

GRID = Grid(
    shape=SHAPE,
    spacing_mm=SPACING[::-1],
    origin_mm=ORIGIN,
    direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
)

MOST_SECONDS = 5.0
"""Nothing here may take long; a test on a busy machine may."""


@pytest.mark.parametrize("name", SOUND)
def test_every_sound_form_gives_the_same_volume(name: str, tmp_path: Path):
    channel = read_channel(SOUND[name](tmp_path))
    assert np.array_equal(channel.array, VOXELS)
    assert channel.array.dtype.isnative
    assert channel.grid.spacing_mm == pytest.approx(GRID.spacing_mm, rel=1e-6)
    assert difference(channel.grid, GRID) is None
    assert not channel.notes


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_sound_is_refused_at_once(name: str, tmp_path: Path):
    make, message = REFUSED[name]
    path = make(tmp_path)
    began = time.monotonic()
    with pytest.raises(ImageError, match=message) as caught:
        read_channel(path)
    assert time.monotonic() - began < MOST_SECONDS
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value) or str(path.parent) in str(caught.value)


@pytest.mark.parametrize(("size", "noted"), [(0.5045, True), (0.5 + 1e-5, False)])
def test_a_pixdim_that_is_off_a_little_is_noted(size: float, tmp_path: Path, *, noted: bool):
    notes = read_channel(nifti("a.nii", put(80, "<f", size))(tmp_path)).notes
    assert [("pixdim" in note, "affine is taken" in note) for note in notes] == [(True, True)] * noted


@pytest.mark.parametrize(
    ("kind", "values"), [(nibabel.Nifti1Image, (0, 1, 0x7F, 0x80, 0xFF)), (nibabel.Nifti2Image, (1, 0xFF))]
)
def test_any_byte_of_a_nifti_header_is_read_or_refused(kind: Any, values: tuple[int, ...], tmp_path: Path):
    """Nothing but an error of the user's is raised, and no library warns."""
    image = kind(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([0.5, 0.75, 2, 1]))
    image.set_qform(image.affine, 1)
    whole, refused = image.to_bytes(), 0
    path = tmp_path / "a.nii"
    for at in range(image.header.sizeof_hdr):
        for value in values:
            content = bytearray(whole)
            content[at] = value
            path.write_bytes(content)
            try:
                channel = read_channel(path)
            except ImageError as error:
                refused += 1
                assert str(path) in str(error)
                assert "\n" not in str(error)
            else:
                assert 0 < channel.array.size <= 60
                assert np.isfinite(channel.array).all()
    assert refused > 50


ODD_FILES = {
    "analyze.hdr": r"ending in .*analyze\.hdr; convert it",
    "anatomical.nii": None,
    "example4d+orig.HEAD": "ending in .*; convert it",
    "example4d.nii.gz": "4 axes of 128x96x24x2",
    "example_nifti2.nii.gz": "4 axes of 32x20x12x2",
    "functional.nii": "4 axes of 17x21x3x20",
    "minc1_1_scale.mnc": "ending in .*; convert it",
    "minc2_baddim.mnc": "ending in .*; convert it",
    "nifti1.hdr": "ending in .*; convert it",
    "nifti2.hdr": "ending in .*; convert it",
    "phantom_truncated.PAR": "ending in .*; convert it",
    "phantom_varscale.REC": "ending in .*; convert it",
    "reoriented_anat_moved.nii": None,
    "resampled_anat_moved.nii": "finite voxels in .*, found 153 NaN",
    "row_major.dconn.nii": "100 values in each voxel",
    "standard.nii.gz": None,
    "test.mgz": "ending in .*; convert it",
    "tinypet.v": "ending in .*; convert it",
}
"""What each file of nibabel's tests must give: the volume that nibabel reads, or a message."""

IN_MEMORY = {
    "example4d+orig.HEAD": "4 axes of",
    "minc1_1_scale.mnc": None,
    "nifti1.hdr": None,
    "nifti2.hdr": None,
    "scaled+tlrc.HEAD": None,
    "test.mgz": "4 axes of",
    "tiny.mnc": None,
}
"""What images must give that nibabel has opened; headers without voxels are not read."""


@pytest.mark.real_data
@pytest.mark.parametrize("name", ODD_FILES)
def test_odd_files_are_read_as_by_nibabel_or_refused(name: str, real_data: Path):
    path = real_data / "odd" / "nifti_variants" / name
    message = ODD_FILES[name]
    if message:
        with pytest.raises(ImageError, match=message):
            read_channel(path)
        return
    theirs: Any = nibabel.load(path)
    ours = read_channel(path)
    assert np.array_equal(
        ours.array.transpose(2, 1, 0), np.asanyarray(theirs.dataobj).astype(ours.array.dtype)
    )
    corners = np.asarray([[0, 0, 0], [1, 2, 3], [n - 1 for n in theirs.shape[:3]]])
    positions = corners @ theirs.affine[:3, :3].T + theirs.affine[:3, 3]
    assert ours.grid.physical(corners[:, ::-1]) == pytest.approx(positions * [-1, -1, 1], abs=1e-3)


@pytest.mark.real_data
@pytest.mark.parametrize("name", IN_MEMORY)
def test_odd_images_of_nibabel_are_taken_or_refused(name: str, real_data: Path):
    image: Any = nibabel.load(real_data / "odd" / "nifti_variants" / name)
    if isinstance(image, nibabel.Nifti1Pair) and not Path(image.file_map["image"].filename).exists():
        image = type(image)(np.zeros(image.shape, np.int16), image.affine, image.header)
    message = IN_MEMORY[name]
    if message:
        with pytest.raises(ImageError, match=message):
            as_volume(image)
        return
    volume = as_volume(image)
    assert sorted(volume.array.shape[1:]) == sorted(image.shape[:3])


@pytest.mark.real_data
def test_the_order_of_axes_makes_no_difference(real_data: Path):
    """One volume in all 48 orders."""
    files = sorted((real_data / "odd" / "nifti_axis_orders").glob("*.nii.gz"))
    assert len(files) == 48
    first = read_volume(files[0])
    for path in files[1:]:
        volume = read_volume(path)
        assert np.array_equal(volume.array, first.array), path.name
        assert difference(volume.grid, first.grid) is None, path.name
        letters = "".join(axis for axis in path.name.split(".")[0])
        assert "".join(nibabel.aff2axcodes(nibabel.load(path).affine)) == letters
