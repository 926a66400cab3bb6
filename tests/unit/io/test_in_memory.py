"""Images in memory: the same volume whatever library holds it, and labels back in its kind."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from autospine.core.errors import ImageError
from autospine.core.geometry import difference
from autospine.io.images import read_volume
from autospine.io.in_memory import as_volume, checked_spacing, like

VOXELS = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


@pytest.fixture
def image():
    """Axes that run to the right, the head and the front, oblique by a few degrees."""
    made = sitk.GetImageFromArray(VOXELS)
    made.SetSpacing((0.5, 2.0, 3.0))
    made.SetOrigin((1.0, -2.0, 3.0))
    turn = np.deg2rad(4)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    axes = np.array([[-1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    made.SetDirection((rotation @ axes).ravel().tolist())
    return made


def test_every_library_gives_the_volume_of_the_file(image, tmp_path):
    path = tmp_path / "image.nii.gz"
    sitk.WriteImage(image, str(path))
    expected = read_volume(path)
    for held in (image, nibabel.load(path), str(path), [image]):
        volume = as_volume(held)
        assert np.array_equal(volume.array, expected.array)
        assert difference(volume.grid, expected.grid) is None
    array = as_volume(expected.array[0], expected.grid.spacing_mm)
    assert np.array_equal(array.array, expected.array)
    assert array.grid.spacing_mm == expected.grid.spacing_mm


def test_labels_come_back_in_kind_and_in_place(image, tmp_path):
    path = tmp_path / "image.nii.gz"
    sitk.WriteImage(image, str(path))
    loaded = nibabel.load(path)
    volume = as_volume(image)
    labels = (volume.array[0] % 3).astype(np.uint8)
    back = like(image, labels, volume)
    assert np.array_equal(sitk.GetArrayFromImage(back), VOXELS % 3)
    assert back.GetDirection() == pytest.approx(image.GetDirection())
    assert (back.GetOrigin(), back.GetSpacing()) == (image.GetOrigin(), image.GetSpacing())
    same = like(loaded, labels, as_volume(loaded))
    assert np.array_equal(same.dataobj, np.asarray(loaded.dataobj) % 3)
    assert np.array_equal(same.affine, loaded.affine)
    assert like(volume.array[0], labels, volume) is labels


def test_channels_are_stacked(image):
    assert as_volume([image, image]).array.shape[0] == 2
    assert as_volume(np.stack([VOXELS, VOXELS]), (1.0, 1.0, 1.0)).array.shape == (2, 4, 5, 6)
    with pytest.raises(ImageError, match="all channels of a case on one grid"):
        as_volume([image, image[:, :, 1:]])


@pytest.mark.parametrize(
    "spacing", [1.5, "1 1 1", (1.5, 1.5), (1.0, 1.0, -1.0), (1.0, 1.0, np.nan), (1.0, 1.0, np.inf), ["1"] * 3]
)
def test_spacings_that_are_none_are_refused(spacing):
    with pytest.raises(ImageError, match=r"spacing_mm=\(S, P, L\) as three positive numbers, found"):
        checked_spacing(spacing)


def test_spacings_and_masks_of_numpy_are_taken():
    assert checked_spacing(np.asarray([1, 2, 3], np.float32)) == checked_spacing([1, 2, 3]) == (1.0, 2.0, 3.0)
    assert as_volume(VOXELS > 3, (1.0, 1.0, 1.0)).array.dtype == np.uint8


@pytest.mark.parametrize(
    ("held", "spacing", "message"),
    [
        (VOXELS, None, r"spacing_mm=\(S, P, L\) with NumPy arrays"),
        (VOXELS[0], (1.0, 1.0, 1.0), r"an array \(S, P, L\) or \(C, S, P, L\)"),
        (VOXELS[0], None, r"an array \(S, P, L\) or \(C, S, P, L\)"),
        (VOXELS, (1.0, 0.0, 1.0), "three positive numbers"),
        (VOXELS, (1e-3, 1e-3, 1e-3), "voxels of 0.05 to 20 mm, found 0.001 x 0.001 x 0.001 mm in the image"),
        (VOXELS.astype(complex), (1.0, 1.0, 1.0), "array of numbers, found one of complex128"),
        (VOXELS.astype(str), (1.0, 1.0, 1.0), "array of numbers"),
        (VOXELS.astype(object), (1.0, 1.0, 1.0), "array of numbers, found one of object"),
        (np.full((2, 2, 2), np.nan), (1.0, 1.0, 1.0), "found 8 NaN or infinite"),
        (sitk.Image(4, 4, sitk.sitkInt16), None, "a 3D image of single values, found 2 axes"),
        (sitk.Image([4, 4, 4], sitk.sitkVectorInt16, 2), None, "2 values per voxel"),
        (nibabel.Nifti1Image(np.zeros((2, 2, 2, 3), np.float32), np.eye(4)), None, "expected a 3D volume"),
        (nibabel.spatialimages.SpatialImage(VOXELS, np.zeros((4, 4))), None, "positive spacing"),
        (7, None, "found int; convert it"),
    ],
)
def test_what_is_no_image_is_refused(held, spacing, message):
    with pytest.raises(ImageError, match=message):
        as_volume(held, spacing)


def test_files_without_orientation_are_refused_whoever_has_read_them(image, tmp_path):
    """ITK takes their axes to run along L, P and S, nibabel along L, A and S; both are guesses."""
    path = tmp_path / "image.nii"
    sitk.WriteImage(image, str(path))
    content = bytearray(path.read_bytes())
    content[252:256] = bytes(4)  # both codes
    path.write_bytes(content)
    for held in (path, nibabel.load(path), sitk.ReadImage(str(path))):
        with pytest.raises(
            ImageError, match=r"the orientation of the image in .*none in its header; .*sform"
        ):
            as_volume(held)
    stated = nibabel.load(path)
    stated.set_sform(np.diag([0.5, 2.0, 3.0, 1.0]), 1)
    held = sitk.ReadImage(str(path))
    for key in ("qform_code", "sform_code"):
        held.EraseMetaData(key)
    assert as_volume(held).array.shape == as_volume(stated).array.shape == (1, 4, 5, 6)


def test_other_formats_of_nibabel_say_where_left_is_or_are_refused():
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    volume = as_volume(nibabel.MGHImage(VOXELS.astype(np.int32), affine))
    assert np.array_equal(volume.array[0], VOXELS.transpose(2, 1, 0))
    with pytest.raises(ImageError, match="the orientation of the image in the image, found none"):
        as_volume(nibabel.analyze.AnalyzeImage(VOXELS, affine))
    with pytest.raises(ImageError, match="the orientation of the image in the image, found none"):
        as_volume(nibabel.Nifti1Image(VOXELS, None))


@pytest.mark.parametrize("kind", ["int16", "uint8", "float32", "float64"])
@pytest.mark.parametrize("slope", [1.0, 0.37])
def test_scaled_files_have_the_same_values_however_they_are_read(kind, slope, tmp_path):
    path = tmp_path / "a.nii.gz"
    made = nibabel.Nifti1Image(VOXELS.astype(kind), np.diag([-1.0, -1.0, 1.0, 1.0]))
    made.header.set_slope_inter(slope, -3.0 if slope != 1 else 0.0)
    nibabel.save(made, path)
    expected = as_volume(path).array
    for held in (nibabel.load(path), sitk.ReadImage(str(path))):
        assert np.array_equal(as_volume(held).array, expected)


@pytest.mark.parametrize("files", [[], ["a_0000.nii.gz", "b_0000.nii.gz"]])
def test_a_folder_of_cases_is_pointed_to_where_it_can_be_segmented(image, tmp_path, files):
    for name in files:
        sitk.WriteImage(image, str(tmp_path / name))
    with pytest.raises(ImageError, match=r"folder without any; name a file .* `autospine.predict_folder`"):
        as_volume(tmp_path)
