"""Volumes: what was written comes back on its own grid, and what is no volume is refused."""

import gc
import gzip
import struct
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from autospine.core.errors import ImageError
from autospine.core.geometry import Grid, difference
from autospine.core.labels import parse_labels
from autospine.io.images import (
    ENDINGS,
    NRRD_ENDINGS,
    read_labels,
    read_volume,
    unpack,
    write_array,
    write_labels,
)
from autospine.io.segments import segments_of

WriteImage = Callable[..., Path]

ORIENTATIONS = [
    np.eye(3)[list(order)] * np.asarray(signs)
    for order in permutations(range(3))
    for signs in product((1.0, -1.0), repeat=3)
]

SPACING, ORIGIN = (3.0, 0.7, 0.9), (-120.5, 33.25, 700.125)

# About z by 20 degrees, then about x by 10.
OBLIQUE = np.array(
    [
        [0.9396926207859084, -0.3420201433256687, 0.0],
        [0.3368240888334651, 0.9254165783983234, -0.17364817766693033],
        [0.05939117461388475, 0.16317591116653482, 0.984807753012208],
    ]
)


@pytest.fixture
def marked() -> np.ndarray:
    """Labels without any symmetry."""
    return np.random.default_rng(0).integers(0, 30, (4, 5, 6)).astype(np.uint8)


def header(path: Path) -> list[float]:
    image = sitk.ReadImage(str(path))
    return [*image.GetSize(), *image.GetSpacing(), *image.GetOrigin(), *image.GetDirection()]


@pytest.mark.parametrize("matrix", [*ORIENTATIONS, *(OBLIQUE @ m for m in ORIENTATIONS[::7])])
def test_labels_come_back_header_for_header(
    matrix: np.ndarray, marked: np.ndarray, write_image: WriteImage, tmp_path: Path
):
    source = write_image(tmp_path / "in.nii.gz", marked, SPACING, ORIGIN, matrix.ravel())
    volume = read_labels(source)
    # Every label lies where ITK says it lies.
    image = sitk.ReadImage(str(source))
    for index in ((0, 0, 0), (3, 4, 5), (1, 4, 2)):
        s, p, l = index  # noqa: E741
        place = np.asarray(image.TransformIndexToPhysicalPoint((l, p, s)))
        s, p, l = np.rint(volume.grid.index(place)).astype(int)  # noqa: E741
        assert volume.array[0, s, p, l] == marked[index]
    target = tmp_path / "out.nii.gz"
    write_labels(target, volume.array[0], volume.stored)
    assert np.allclose(header(target), header(source), atol=1e-4)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(target))), marked)


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_is_read_and_written(
    ending: str, marked: np.ndarray, write_image: WriteImage, tmp_path: Path
):
    source = write_image(tmp_path / "in" / f"a{ending}", marked, SPACING, ORIGIN, OBLIQUE.ravel())
    volume = read_labels(source)
    target = tmp_path / "out" / f"a{ending}"
    write_labels(target, volume.array[0], volume.stored)
    assert np.allclose(header(target), header(source), atol=1e-4)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(target))), marked)
    detached = ending in (".mhd", ".nhdr")
    assert len(list(target.parent.iterdir())) == 1 + detached


@pytest.mark.parametrize("ending", ENDINGS)
def test_nrrd_carries_names_and_colours(ending: str, marked: np.ndarray, tmp_path: Path):
    """The keys are those that 3D Slicer reads; they change neither voxels nor grid."""
    space = parse_labels({"background": 0, "L1": 20, "T13": 28, "Röhre": 3})
    labels = np.where(marked > np.median(marked), 28, 20) * (marked > marked.min())
    target = tmp_path / f"a{ending}"
    write_labels(target, labels, plain_grid(labels.shape), segments_of(space))
    back = read_labels(target)
    assert np.array_equal(back.array[0], labels)
    assert difference(back.stored, plain_grid(labels.shape)) is None
    image = sitk.ReadImage(str(target))
    found = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys() if key.startswith("Segment")}
    if ending not in NRRD_ENDINGS:
        assert found == {}
        return
    assert [found[f"Segment{n}_Name"] for n in range(2)] == ["L1", "T13"]
    assert [found[f"Segment{n}_LabelValue"] for n in range(2)] == ["20", "28"]
    assert "Segment2_Name" not in found


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "uint8", "float32"])
def test_voxel_types_are_kept(dtype: str, write_image: WriteImage, tmp_path: Path):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    volume = read_volume(write_image(tmp_path / "a.nii.gz", array))
    assert volume.array.dtype == dtype
    assert np.array_equal(volume.array[0], array)


@pytest.mark.parametrize(
    ("values", "dtype"), [((0, 24), "uint8"), ((0, 300), "uint16"), ((-1, 24), "int16"), ((-1, 0), "int8")]
)
def test_labels_are_written_in_the_smallest_type(values: tuple[int, int], dtype: str, tmp_path: Path):
    labels = np.resize(np.asarray(values, dtype=np.int64), (2, 3, 4))
    write_labels(tmp_path / "a.nii.gz", labels, plain_grid((2, 3, 4)))
    back = read_labels(tmp_path / "a.nii.gz").array[0]
    assert np.can_cast(back.dtype, dtype)
    assert np.array_equal(back, labels)


def test_masks_saved_as_floating_point_become_integers(write_image: WriteImage, tmp_path: Path):
    path = write_image(tmp_path / "a.nii.gz", np.full((2, 3, 4), 20.0))
    assert np.issubdtype(read_labels(path).array.dtype, np.integer)


@pytest.mark.parametrize(
    ("value", "says"),
    [(0.5, "found 0.5; resample"), (0.98, "found 0.98"), (-1.2, "found -1.2"), (3e9, "found 3e\\+09")],
)
def test_fractions_are_no_labels(value: float, says: str, write_image: WriteImage, tmp_path: Path):
    array = np.zeros((2, 3, 4))
    array[1, 1] = value
    with pytest.raises(ImageError, match=rf"whole numbers as labels in .*a\.nii\.gz, {says}"):
        read_labels(write_image(tmp_path / "a.nii.gz", array))


def test_labels_that_are_nearly_whole_are_rounded_and_noted(write_image: WriteImage, tmp_path: Path):
    array = np.asarray([[[0, 0.996, 2.004, 19.9999]]])
    volume = read_labels(write_image(tmp_path / "a.nii.gz", array))
    assert volume.array.ravel().tolist() == [0, 1, 2, 20]
    assert volume.notes == ("labels up to 0.004 from whole numbers were rounded",)
    array[0, 0, 0] = 1 / 3
    with pytest.raises(ImageError, match=r"found 0\.333333; resample"):
        read_labels(write_image(tmp_path / "b.nii.gz", array))
    many = np.linspace(0, 1, 24).reshape(2, 3, 4)
    with pytest.raises(ImageError, match=r"found 0\.04347\d+(, [\d.]+){4} and 17 more"):
        read_labels(write_image(tmp_path / "c.nii.gz", many))


def test_channels_are_stacked(write_image: WriteImage, tmp_path: Path):
    files = [write_image(tmp_path / f"a_000{i}.mha", np.full((2, 3, 4), i, np.int16)) for i in range(3)]
    assert read_volume(files).array.shape == (3, 2, 3, 4)
    assert read_volume(files).array[:, 0, 0, 0].tolist() == [0, 1, 2]


def test_channels_on_different_grids_are_refused(write_image: WriteImage, tmp_path: Path):
    first = write_image(tmp_path / "a_0000.mha", np.zeros((2, 3, 4), np.int16))
    second = write_image(tmp_path / "a_0001.mha", np.zeros((2, 3, 4), np.int16), origin_mm=(0, 0, 0.2))
    with pytest.raises(ImageError, match=r"a_0001\.mha.*0\.2 mm apart.*a_0000\.mha"):
        read_volume([first, second])


def test_channels_in_another_order_of_axes_are_turned(write_image: WriteImage, tmp_path: Path):
    array = np.arange(24).reshape(2, 3, 4).astype(np.int16)
    first = write_image(tmp_path / "a_0000.mha", array)
    flipped = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    second = write_image(tmp_path / "a_0001.mha", array[:, :, ::-1], origin_mm=(3, 0, 0), direction=flipped)
    volume = read_volume([first, second])
    assert np.array_equal(volume.array[0], volume.array[1])
    with pytest.raises(ImageError, match="all channels of a case on one grid"):
        read_volume([first, write_image(tmp_path / "a_0002.mha", array, direction=flipped)])


def test_a_fourth_axis_of_one_is_accepted(tmp_path: Path):
    path = save_nifti(tmp_path / "a.nii.gz", np.zeros((4, 5, 6, 1), np.int16))
    assert read_volume(path).array.shape == (1, 6, 5, 4)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((4, 5), "a single slice of 4x5; give the whole volume as one 3D file"),
        ((4, 5, 6, 7), "4 axes of 4x5x6x7; split it into 3D files"),
        ((4, 5, 6, 1, 3), "3 values in each voxel of 4x5x6; save it in grey"),
    ],
)
def test_other_dimensions_are_refused(shape: tuple[int, ...], says: str, tmp_path: Path):
    path = save_nifti(tmp_path / "a.nii.gz", np.zeros(shape, np.int16))
    with pytest.raises(ImageError, match=rf"3D volume .*a\.nii\.gz, found {says}"):
        read_volume(path)


@pytest.mark.parametrize("shape", [(1, 5, 6), (4, 1, 6), (4, 5, 1), (1, 1, 1)])
def test_an_axis_of_one_voxel_is_accepted(shape: tuple[int, ...], write_image: WriteImage, tmp_path: Path):
    assert read_volume(write_image(tmp_path / "a.nii.gz", np.ones(shape, np.int16))).array.shape == (
        1,
        *shape,
    )


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("size", [0, -4])
def test_an_axis_without_voxels_is_refused(axis: int, size: int, tmp_path: Path):
    path = save_nifti(tmp_path / "a.nii", np.zeros((4, 5, 6), np.int16))
    raw = bytearray(path.read_bytes())
    raw[40 + 2 * axis : 42 + 2 * axis] = struct.pack("<h", size)
    path.write_bytes(raw)
    with pytest.raises(ImageError, match=rf"voxels along every axis of .*a\.nii, found size .*{size}"):
        read_volume(path)


def test_an_axis_without_voxels_is_refused_in_other_formats(tmp_path: Path):
    path = tmp_path / "a.mha"
    path.write_bytes(PLAIN_MHA.replace(b"DimSize = 2 2 2", b"DimSize = 2 0 2"))
    with pytest.raises(ImageError, match=r"voxels along every axis of .*a\.mha, found size 2x0x2; convert"):
        read_volume(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_several_values_per_voxel_are_refused(ending: str, kind: type, tmp_path: Path):
    """Colours, and vectors."""
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), kind), isVector=True), str(path))
    with pytest.raises(ImageError, match=r"of single values in .*found 3 values in each voxel of 6x5x4; s"):
        read_volume(path)


def test_colours_are_refused_where_axes_are_repaired(tmp_path: Path):
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[0, 1] = 3e-4
    path = save_nifti(tmp_path / "a.nii", np.zeros((4, 5, 6), [(c, "u1") for c in "RGB"]), affine)
    with pytest.raises(
        ImageError, match=r"of single values in .*; save it in grey, or as one file per channel"
    ):
        read_volume(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".seg.nrrd"])
@pytest.mark.parametrize("name", ["Frau Müller, L5 (2)", "CASE.V1"])
def test_names_as_people_give_them(ending: str, name: str, write_image: WriteImage, tmp_path: Path):
    array = np.arange(24).reshape(2, 3, 4).astype(np.int16)
    for number, last in enumerate((ending, ending.upper())):
        path = write_image(tmp_path / str(number) / f"{name}{ending}", array)
        path = path.rename(path.with_name(f"{name}{last}"))
        volume = read_volume(path)
        assert np.array_equal(volume.array[0], array)
        target = tmp_path / "out" / f"{name}{ending}"
        write_labels(target, volume.array[0], volume.stored)
        assert np.array_equal(read_labels(target).array[0], array)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_truncated_files_are_refused(ending: str, kept: float, write_image: WriteImage, tmp_path: Path):
    noise = np.random.default_rng(0).integers(-500, 500, (20, 20, 20)).astype(np.int16)
    path = write_image(tmp_path / f"a{ending}", noise)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ImageError, match=rf"expected .*a{ending}.*; copy"):
        read_volume(path)


def test_a_shortened_volume_in_a_sound_gzip_file_is_refused(write_image: WriteImage, tmp_path: Path):
    path = write_image(tmp_path / "a.nii.gz", np.ones((20, 20, 20), np.int16))
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-100]))
    with pytest.raises(ImageError, match=r"16000 bytes.*a\.nii\.gz, found 15900: the file is truncated"):
        read_volume(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_files_of_another_kind_are_refused(ending: str, tmp_path: Path):
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"hello world" * 100)
    with pytest.raises(ImageError, match=rf"a{ending} damaged: .*; copy or convert it again"):
        read_volume(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_not_finite_are_refused(
    ending: str, value: float, write_image: WriteImage, tmp_path: Path
):
    array = np.zeros((3, 4, 5), np.float32)
    array[1, 2, 3:] = value
    path = write_image(tmp_path / f"a{ending}", array)
    with pytest.raises(ImageError, match=rf"finite voxels in .*a{ending}, found 2 NaN or infinite"):
        read_volume(path)


def test_voxels_that_float32_does_not_hold_are_refused(write_image: WriteImage, tmp_path: Path):
    path = write_image(tmp_path / "a.nii.gz", np.full((3, 4, 5), -1e300))
    with pytest.raises(ImageError, match=r"voxels that float32 holds in .*a\.nii\.gz, found -1e\+300 to"):
        read_volume(path)


@pytest.mark.parametrize("size", [0.0, 2.0])
def test_voxel_sizes_that_contradict_each_other_are_refused(size: float, tmp_path: Path):
    path = save_nifti(tmp_path / "a.nii", np.zeros((4, 5, 6), np.int16), np.diag([1.0, 1.5, 1.0, 1.0]))
    raw = bytearray(path.read_bytes())
    raw[84:88] = struct.pack("<f", 1.501)  # pixdim[2], rounded
    path.write_bytes(raw)
    read_volume(path)
    raw[84:88] = struct.pack("<f", size)
    path.write_bytes(raw)
    says = "the same voxel sizes in pixdim and sform" if size else "positive voxel sizes"
    with pytest.raises(ImageError, match=rf"{says} (in|of) .*a\.nii, found 1 x {size:g} x 1"):
        read_volume(path)


@pytest.mark.parametrize("size", [0.0, -1.0, np.nan, np.inf])
def test_impossible_voxel_sizes_are_refused(size: float, tmp_path: Path):
    path = save_nifti(tmp_path / "a.nii", np.zeros((4, 5, 6), np.int16))
    raw = bytearray(path.read_bytes())
    raw[88:92] = struct.pack("<f", size)  # pixdim[3]
    raw[252:256] = struct.pack("<2h", 1, 0)  # by qform, not by sform
    path.write_bytes(raw)
    with pytest.raises(
        ImageError, match=r"positive voxel sizes in .*a\.nii, found 1 x 1 x .*mend the header"
    ):
        read_volume(path)


@pytest.mark.parametrize("size", [b"0", b"nan", b"inf"])
def test_impossible_voxel_sizes_are_refused_in_other_formats(size: bytes, tmp_path: Path):
    path = tmp_path / "a.mha"
    path.write_bytes(PLAIN_MHA.replace(b"ElementSpacing = 1", b"ElementSpacing = " + size))
    with pytest.raises(ImageError, match=r"positive spacing in .*a\.mha, found (0|nan|inf) x 1 x 1 mm"):
        read_volume(path)


def test_a_zero_column_of_the_affine_is_refused(tmp_path: Path):
    path = save_nifti(tmp_path / "a.nii", np.zeros((4, 5, 6), np.int16), np.diag([1.0, 1.0, 1.0, 1.0]))
    raw = bytearray(path.read_bytes())
    raw[312:328] = struct.pack("<4f", 0, 0, 0, 0)  # srow_z
    path.write_bytes(raw)
    with pytest.raises(ImageError, match=r"positive voxel sizes in .*found 1 x 1 x 0 mm"):
        read_volume(path)


def test_axes_off_by_rounding_are_repaired_and_reported(tmp_path: Path):
    affine = np.diag([-1.5, -1.5, 1.5, 1.0])
    affine[0, 1] = 3e-4
    volume = read_volume(save_nifti(tmp_path / "a.nii.gz", np.zeros((4, 5, 6), np.int16), affine))
    assert len(volume.notes) == 1
    assert "repaired" in volume.notes[0]
    direction = np.asarray(volume.stored.direction).reshape(3, 3)
    assert np.allclose(direction @ direction.T, np.eye(3), atol=1e-12)
    write_labels(tmp_path / "b.nii.gz", np.zeros((6, 5, 4), np.uint8), volume.stored)
    assert np.allclose(nibabel.load(tmp_path / "b.nii.gz").affine, affine, atol=3e-4)


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_sheared_axes_are_refused(ending: str, tmp_path: Path):
    path = tmp_path / f"a{ending}"
    if ending == ".mha":
        path.write_bytes(PLAIN_MHA.replace(b"1 0 0 0 1", b"1 0.1 0 0 1"))
    else:
        affine = np.diag([-1.0, -1.0, 1.0, 1.0])
        affine[0, 1] = 0.1
        save_nifti(path, np.zeros((4, 5, 6), np.int16), affine)
    with pytest.raises(ImageError, match=rf"perpendicular axes in .*a{ending}, found them sheared"):
        read_volume(path)


def test_missing_files_and_unknown_endings_are_named(tmp_path: Path):
    with pytest.raises(ImageError, match=r"nothing\.nii\.gz, found no such file"):
        read_volume(tmp_path / "nothing.nii.gz")
    (tmp_path / "link.nii.gz").symlink_to("nothing.nii.gz")
    with pytest.raises(
        ImageError, match=r"link\.nii\.gz, found a link to nothing\.nii\.gz, where there is none"
    ):
        read_volume(tmp_path / "link.nii.gz")
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(ImageError, match=r"ending in \.nii\.gz.*a\.png; convert it"):
        read_volume(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"ending in \.nii\.gz.*b\.png; rename it"):
        write_array(tmp_path / "b.png", np.zeros((2, 2, 2)), plain_grid((2, 2, 2)))


def test_writing_fails_whole(tmp_path: Path):
    """Where writing fails, nothing is left behind and a sentence says why."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(ImageError, match=r"expected to write .*a\.nii\.gz"):
        write_array(tmp_path / "file" / "a.nii.gz", np.zeros((2, 2, 2)), plain_grid((2, 2, 2)))
    (tmp_path / "b.nii.gz" / "inside").mkdir(parents=True)
    with pytest.raises(ImageError, match=r"expected to write .*b\.nii\.gz"):
        write_array(tmp_path / "b.nii.gz", np.zeros((2, 2, 2)), plain_grid((2, 2, 2)))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b.nii.gz", "file"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("bytes_left", [0, 100, 20_000])
def test_a_disk_that_becomes_full_leaves_nothing(ending: str, bytes_left: int, tmp_path: Path):
    """A limit to the size of files makes writing fail as a full disk does."""
    noise = np.random.default_rng(0).integers(0, 28, (40, 40, 40)).astype(np.uint8)
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, limits[1]))
    try:
        with pytest.raises(ImageError, match=rf"expected to write .*a{ending}, found .*; free some space"):
            write_labels(tmp_path / f"a{ending}", noise, plain_grid(noise.shape))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize("axis", ["x", "y", "z"])
@pytest.mark.parametrize("degrees", [15, 44.999, 45, 45.001, 135, -45])
def test_turned_grids_come_back(ending: str, axis: str, degrees: float, tmp_path: Path):
    """At 45 degrees rounding decides what an axis is called."""
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    direction = tuple(Rotation.from_euler(axis, degrees, degrees=True).as_matrix().ravel().tolist())
    grid = Grid(shape=(3, 4, 5), spacing_mm=(3.0, 1.5, 0.7), origin_mm=(-7.0, 11.0, 5.0), direction=direction)
    write_array(tmp_path / f"a{ending}", array, grid)
    back = read_volume(tmp_path / f"a{ending}")
    assert difference(back.stored, grid) is None
    np.testing.assert_array_equal(back.turned_to(grid)[0], array)


def test_arrays_are_written_on_their_grid(tmp_path: Path):
    grid = Grid(
        shape=(2, 3, 4),
        spacing_mm=SPACING,
        origin_mm=ORIGIN,
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    array = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    write_array(tmp_path / "new" / "a.nii.gz", array, grid)
    volume = read_volume(tmp_path / "new" / "a.nii.gz")
    assert np.array_equal(volume.array[0], array)
    assert np.allclose(volume.grid.spacing_mm, SPACING, atol=1e-6)
    assert np.allclose(volume.grid.origin_mm, ORIGIN, atol=1e-4)


REAL = [
    *(
        f"Dataset001_SpineReal/imagesTr/{name}_0000.nii.gz"
        for name in (
            "ct_cervical",
            "ct_hip_metal",
            "ct_lumbar_crop",
            "ct_lumbosacral",
            "mr_abdomen",
            "mr_t2w_crop",
        )
    ),
    "Dataset001_SpineReal/imagesTs/mr_lumbar_0000.nii.gz",
    "real/dicom_ct",
]


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL)
def test_real_images_come_back_on_their_own_grid(name: str, real_data: Path, tmp_path: Path):
    path = real_data / name
    volume = read_volume(path)
    assert np.issubdtype(volume.array.dtype, np.integer)
    assert bool(volume.notes) == ("ct_cervical" in name)
    labels = (volume.array[0] > np.median(volume.array)).astype(np.int16)
    target = tmp_path / "out.nii.gz"
    write_labels(target, labels, volume.stored)
    written = nibabel.load(target)
    assert np.issubdtype(written.get_data_dtype(), np.integer)
    if path.is_dir():
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
        truth = reader.Execute()
        assert np.allclose(
            header(target),
            [*truth.GetSize(), *truth.GetSpacing(), *truth.GetOrigin(), *truth.GetDirection()],
            atol=1e-4,
        )
        return
    original = nibabel.load(path)
    assert written.shape == original.shape
    assert np.allclose(written.affine[:3, 3], original.affine[:3, 3], atol=1e-4)
    spacing = np.linalg.norm(original.affine[:3, :3], axis=0)
    assert np.allclose(np.linalg.norm(written.affine[:3, :3], axis=0), spacing, atol=1e-4)
    assert np.allclose(written.affine[:3, :3] / spacing, original.affine[:3, :3] / spacing, atol=1e-4)
    stored = np.asanyarray(original.dataobj)
    assert np.array_equal(np.asanyarray(written.dataobj), stored > np.median(stored))


@pytest.mark.real_data
def test_a_real_mask_in_floating_point_is_read(real_data: Path):
    volume = read_labels(real_data / "real" / "verse004" / "sub-verse004_seg-vert_msk.nii.gz")
    assert np.unique(volume.array).tolist() == [0, *range(16, 25)]


PLAIN_MHA = b"""ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 0 0 0
ElementSpacing = 1 1 1
DimSize = 2 2 2
ElementType = MET_UCHAR
ElementDataFile = LOCAL
""" + bytes(8)


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """By nibabel: array in the file's own x, y, z order."""
    nibabel.save(
        nibabel.Nifti1Image(array, np.diag([-1.0, -1.0, 1.0, 1.0]) if affine is None else affine), path
    )
    return path


def plain_grid(shape: tuple[int, int, int]) -> Grid:
    return Grid(
        shape=shape,
        spacing_mm=(1.0, 1.0, 1.0),
        origin_mm=(0.0, 0.0, 0.0),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )


def test_voxels_outlive_the_image_that_they_were_read_with():
    """They are not copied, and nobody else can write to them."""
    expected = np.random.default_rng(0).integers(0, 9, (40, 50, 60)).astype(np.int16)
    arrays = [unpack(sitk.GetImageFromArray(expected + n), "made").array for n in range(3)]
    gc.collect()
    for n, array in enumerate(arrays):
        np.testing.assert_array_equal(array, expected + n)
        assert not array.flags.writeable
