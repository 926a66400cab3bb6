"""DICOM series and multi-frame files: sound ones of many classes, and others with one thing wrong."""

import gzip
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from odd_inputs.images import nifti
from odd_inputs.trial import Accepted, Outcome, Refused, Right, Trial
from odd_inputs.volumes import ORIGIN_MM, SHAPE, SPACING_MM, affine, voxels

Change = Callable[[Dataset, int], object]
"""Changes the header of the slice with this number."""

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"

CLASSES = {
    "CT": CT,
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PET": "1.2.840.10008.5.1.4.1.1.128",
    "secondary capture": "1.2.840.10008.5.1.4.1.1.7",
    "multi-frame grey secondary capture": "1.2.840.10008.5.1.4.1.1.7.2",
    "multi-frame word secondary capture": "1.2.840.10008.5.1.4.1.1.7.3",
    "enhanced CT": ENHANCED_CT,
    "enhanced MR": ENHANCED_MR,
    "legacy converted CT": "1.2.840.10008.5.1.4.1.1.2.2",
    "legacy converted MR": "1.2.840.10008.5.1.4.1.1.4.4",
    "legacy converted PET": "1.2.840.10008.5.1.4.1.1.128.1",
    "X-ray 3D angiographic": "1.2.840.10008.5.1.4.1.1.13.1.1",
    "XA": "1.2.840.10008.5.1.4.1.1.12.1",
    "RF": "1.2.840.10008.5.1.4.1.1.12.2",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "a private class": "1.2.3.4.5.6.7",
}
"""Classes of single slices with sound position, orientation and PixelSpacing (PS3.4, table B.5-1)."""

INTERCEPT = -1024


def dicom_trials() -> Iterator[Trial]:
    yield from _sound()
    yield from _refused()
    yield from _passed_over()
    yield from _tilted()
    yield from _multi_frame()
    yield from _jpeg()
    yield from _not_called_hu()


def series(
    change: Change | None = None, keep: Sequence[int] = range(SHAPE[0]), folder_name: str = "case"
) -> Callable[[Path], Path]:
    """Makes a series of the volume's slices in a folder, with headers changed."""

    def make(folder: Path) -> Path:
        inside = folder / folder_name
        inside.mkdir(parents=True, exist_ok=True)
        for number in keep:
            header = slice_header(number)
            if change is not None:
                change(header, number)
            # Names say nothing of the order.
            save(header, inside / f"{(number * 5) % 17:03d}.dcm")
        return inside

    return make


def slice_header(number: int) -> FileDataset:
    """One CT slice, whole."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    header.SOPClassUID = CT
    header.SOPInstanceUID = f"1.2.826.0.1.3680043.8.498.1.{number + 1}"
    header.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.2"
    header.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.3"
    header.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.4"
    header.Modality = "CT"
    header.SeriesDescription = "spine"
    header.InstanceNumber = number + 1
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.ImagePositionPatient = [*ORIGIN_MM[:2], ORIGIN_MM[2] + number * SPACING_MM[2]]
    header.PixelSpacing = [SPACING_MM[1], SPACING_MM[0]]
    header.SliceThickness = SPACING_MM[2]
    header.PatientID, header.PatientName = "0", "nobody"
    set_pixels(header, voxels()[number], INTERCEPT)
    return header


def set_pixels(header: Dataset, hu: np.ndarray, intercept: int) -> None:
    """Store values as unsigned 16 bits with an intercept."""
    header.Rows, header.Columns = hu.shape[-2:]
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit = 15
    header.PixelRepresentation = 0
    header.RescaleIntercept, header.RescaleSlope = intercept, 1
    header.PixelData = (hu.astype(np.int32) - intercept).astype(np.uint16).tobytes()


def save(header: Any, path: Path) -> None:
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.save_as(path, enforce_file_format=True)


def right(tolerance: float = 0.0) -> Right:
    return Right(array=voxels(), affine=affine(), tolerance=tolerance)


def _sound() -> Iterator[Trial]:
    for name, uid in CLASSES.items():

        def change(header: Dataset, number: int, uid: str = uid) -> None:
            header.SOPClassUID = uid

        yield Trial(kind="geometry", name=f"slices of class {name}", make=series(change), expect=right())

    def inverted(header: Dataset, number: int) -> None:
        # Without a stated look-up, values are values: only their display is inverted (PS3.3 C.7.6.3.1.2).
        header.PhotometricInterpretation = "MONOCHROME1"

    yield Trial(kind="geometry", name="MONOCHROME1", make=series(inverted), expect=right())

    def own_scale(header: Dataset, number: int) -> None:
        set_pixels(header, voxels()[number], -1024 - 10 * number)

    yield Trial(kind="geometry", name="an intercept per slice", make=series(own_scale), expect=right())

    def half(header: Dataset, number: int) -> None:
        header.RescaleSlope = 0.5
        header.PixelData = (2 * (voxels()[number].astype(np.int32) + 1024)).astype(np.uint16).tobytes()

    yield Trial(kind="geometry", name="a slope of a half", make=series(half), expect=right())

    def reversed_stack(header: Dataset, number: int) -> None:
        header.InstanceNumber = SHAPE[0] - number

    yield Trial(kind="geometry", name="numbered from below", make=series(reversed_stack), expect=right())

    def thick(header: Dataset, number: int) -> None:
        header.SliceThickness = 5
        header.SpacingBetweenSlices = 7

    yield Trial(kind="geometry", name="thickness that is not the step", make=series(thick), expect=right())

    for stated in ("OT", "XA", ""):

        def open_modality(header: Dataset, number: int, stated: str = stated) -> None:
            header.Modality = stated

        yield Trial(
            kind="geometry", name=f"Modality {stated or 'empty'}", make=series(open_modality), expect=right()
        )

    def padded(header: Dataset, number: int) -> None:
        header.PixelData += bytes(6)

    yield Trial(kind="sound", name="pixels padded by zeros", make=series(padded), expect=right())

    def flipped(header: Dataset, number: int) -> None:
        header.SpacingBetweenSlices = -2

    yield Trial(kind="geometry", name="a negative step stated", make=series(flipped), expect=right())


def _refused() -> Iterator[Trial]:
    def trial(
        name: str,
        change: Change | None,
        *says: str,
        keep: Sequence[int] = range(SHAPE[0]),
        kind: str = "geometry",
    ) -> Trial:
        return Trial(kind=kind, name=f"series {name}", make=series(change, keep), expect=Refused(says=says))

    def without(*keywords: str, at: int | None = None) -> Change:
        def change(header: Dataset, number: int) -> None:
            for keyword in keywords:
                if at is None or number == at:
                    delattr(header, keyword)

        return change

    yield trial("without PixelSpacing", without("PixelSpacing"), "pixel ?spacing|pixel size")
    yield trial("without positions", without("ImagePositionPatient"), "position")
    yield trial("without orientations", without("ImageOrientationPatient"), "position|orientation")
    yield trial("with a slice missing", None, "missing", keep=[n for n in range(SHAPE[0]) if n != 6])
    yield trial("of one slice", None, "slice", keep=[3])

    def wide(header: Dataset, number: int) -> None:
        header.Columns = header.Columns - 1

    yield trial("of more pixels than columns", wide, "bytes of pixels")

    def low(header: Dataset, number: int) -> None:
        header.Rows = header.Rows - 1

    yield trial("of more pixels than rows", low, "bytes of pixels")

    def of_modality(stated: str) -> Change:
        return lambda header, number: setattr(header, "Modality", stated)

    for stated in ("PT", "US", "NM", "CR"):
        yield trial(f"of Modality {stated}", of_modality(stated), "CT or MR", stated, kind="passed over")

    def in_zero_mm(header: Dataset, number: int) -> None:
        header.PixelSpacing = [0, 0]

    yield trial("of pixels of 0 mm", in_zero_mm, "pixel|spacing|voxel size")

    def other_size(header: Dataset, number: int) -> None:
        if number == 5:
            header.PixelSpacing = [1, 1]

    yield trial("of two pixel sizes", other_size, "pixels? of one size")

    def other_way(header: Dataset, number: int) -> None:
        if number == 5:
            header.ImageOrientationPatient = [1, 0, 0, 0, 0, 1]

    yield trial("of two orientations", other_way, "parallel|orientation")

    def doubled(header: Dataset, number: int) -> None:
        if number % 2:
            header.ImagePositionPatient = [*ORIGIN_MM[:2], ORIGIN_MM[2] + (number - 1) * SPACING_MM[2]]

    yield trial("with double positions", doubled, "double|position")

    def two(header: Dataset, number: int) -> None:
        if number > 6:
            header.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.30"

    for what, keyword, value in (
        ("patients", "PatientID", "1"),
        ("modalities", "Modality", "MR"),
        ("frames of reference", "FrameOfReferenceUID", "1.2.826.0.1.3680043.8.498.40"),
    ):

        def mixed(header: Dataset, number: int, keyword: str = keyword, value: str = value) -> None:
            if number > 6:
                setattr(header, keyword, value)

        yield trial(f"of two {what}", mixed, "slices of one .*of another", kind="passed over")

    yield trial("that is two", two, "one DICOM series", kind="passed over")

    def colour(header: Dataset, number: int) -> None:
        header.SamplesPerPixel, header.PlanarConfiguration = 3, 0
        header.PhotometricInterpretation = "RGB"
        header.BitsAllocated = header.BitsStored = 8
        header.HighBit = 7
        header.PixelData = bytes(3 * SHAPE[1] * SHAPE[2])

    yield trial("in colour", colour, "grey|colou?r|values", kind="messages")

    def cut(folder: Path) -> Path:
        inside = series()(folder)
        path = inside / "005.dcm"
        path.write_bytes(path.read_bytes()[:-150])
        return inside

    yield Trial(
        kind="messages",
        name="series with a slice cut short",
        make=cut,
        expect=Refused(says=("005.dcm", "of the 192 pixels")),
    )

    def text(folder: Path) -> Path:
        inside = folder / "case"
        inside.mkdir()
        (inside / "a.dcm").write_text("no image")
        return inside

    yield Trial(
        kind="messages", name="text named .dcm", make=text, expect=Refused(says=("a.dcm", "named as DICOM"))
    )


def _not_called_hu() -> Iterator[Trial]:
    def bare(header: Dataset, number: int) -> None:
        del header.RescaleSlope, header.RescaleIntercept

    def milligrams(header: Dataset, number: int) -> None:
        header.RescaleType = "MGML"

    for name, change in (("without slope and intercept", bare), ("of Rescale Type MGML", milligrams)):
        yield Trial(
            kind="values", name=f"CT {name}", make=series(change), expect=Accepted(says=("may not be HU",))
        )


def _passed_over() -> Iterator[Trial]:
    def trial(name: str, make: Callable[[Path], Path], expect: Outcome) -> Trial:
        return Trial(kind="passed over", name=name, make=make, expect=expect)

    def loose_beside_folder(folder: Path) -> Path:
        series()(folder)
        save(slice_header(3), folder / "localizer.dcm")
        return folder

    def loose_beside_image(folder: Path) -> Path:
        nifti()(folder)
        made = series()(folder)
        for file in made.iterdir():
            shutil.move(file, folder / file.name)
        made.rmdir()
        return folder

    def folder_beside_image(folder: Path) -> Path:
        nifti()(folder)
        series(folder_name="ct")(folder)
        return folder

    def nested(folder: Path) -> Path:
        nifti()(folder)
        deep = folder / "more" / "other"
        deep.mkdir(parents=True)
        nifti(name="hidden.nii.gz")(deep.parent)
        return folder

    for name, spoil in _SPOILT.items():
        for number, which in ((SHAPE[0] - 1, "last"), (5, "middle")):
            for within in (False, True):
                yield trial(
                    f"the {which} slice {name}{', in a folder of series' if within else ''}",
                    spoilt(number, spoil, within),
                    Refused(says=("DICOM slices", "more" if "folder" in name else f"{number:03d}")),
                )
    named = Refused(says=("DICOM",))
    yield trial("loose slices beside the folder of a series", loose_beside_folder, named)
    yield trial("loose slices beside a NIfTI", loose_beside_image, named)
    yield trial(
        "a folder of slices beside a NIfTI", folder_beside_image, Accepted(says=("2 of 2|2 label maps",))
    )
    yield trial("images in a folder below", nested, Accepted(says=("more",)))


def _moved(path: Path) -> None:
    (path.parent / "more").mkdir()
    path.rename(path.parent / "more" / path.name)


def _packed(path: Path) -> None:
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def _linked(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.dcm")


_SPOILT: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "of zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a page of a proxy": lambda path: path.write_text("<html>no</html>"),
    "packed": _packed,
    "a link to nothing": _linked,
    "in a folder below": _moved,
}
"""What may have become of one slice."""


def spoilt(number: int, spoil: Callable[[Path], object], within: bool) -> Callable[[Path], Path]:
    """Makes a series with one slice spoilt, perhaps beside a sound one."""

    def make(folder: Path) -> Path:
        inside = series()(folder)
        for n in range(SHAPE[0]):
            (inside / f"{(n * 5) % 17:03d}.dcm").rename(inside / f"s{n:03d}")
        for file in list(inside.iterdir()):
            file.rename(inside / f"{file.name[1:]}.dcm")
        spoil(inside / f"{number:03d}.dcm")
        if within:
            series(folder_name="sound")(folder)
        return folder if within else inside

    return make


def _tilted() -> Iterator[Trial]:
    def tilt(degrees: float) -> Change:
        def change(header: Dataset, number: int) -> None:
            x, y, z = header.ImagePositionPatient
            header.ImagePositionPatient = [x, y + np.tan(np.radians(degrees)) * number * SPACING_MM[2], z]
            header.GantryDetectorTilt = degrees

        return change

    for degrees in (5, 18.5, -25):
        yield Trial(
            kind="tilt",
            name=f"gantry tilt of {degrees:g} degrees",
            make=series(tilt(degrees)),
            expect=Accepted(says=("tilt",)),
        )
    yield Trial(
        kind="tilt",
        name="gantry tilt with a slice missing",
        make=series(tilt(10), [n for n in range(SHAPE[0]) if n != 6]),
        expect=Refused(says=("missing",)),
    )


def _multi_frame() -> Iterator[Trial]:
    def make(
        uid: str = ENHANCED_CT, change: Callable[[Dataset], object] | None = None, alone: bool = True
    ) -> Callable[[Path], Path]:
        def write(folder: Path) -> Path:
            inside = folder / "case"
            inside.mkdir()
            header = enhanced(uid)
            if change is not None:
                change(header)
            save(header, inside / "frames.dcm")
            return inside / "frames.dcm" if alone else inside

        return write

    yield Trial(kind="tilt", name="an enhanced CT", make=make(), expect=right())
    yield Trial(kind="tilt", name="an enhanced CT in a folder", make=make(alone=False), expect=right())
    yield Trial(kind="tilt", name="an enhanced MR", make=make(ENHANCED_MR, alone=False), expect=right())

    def shuffled(header: Dataset) -> None:
        order = np.random.default_rng(3).permutation(SHAPE[0])
        frames = np.frombuffer(header.PixelData, np.uint16).reshape(SHAPE)
        header.PixelData = frames[order].tobytes()
        header.PerFrameFunctionalGroupsSequence = Items(
            [header.PerFrameFunctionalGroupsSequence[int(n)] for n in order]
        )

    yield Trial(
        kind="tilt", name="an enhanced CT in another order", make=make(change=shuffled), expect=right()
    )

    def gap(header: Dataset) -> None:
        position = header.PerFrameFunctionalGroupsSequence[-1].PlanePositionSequence[0]
        position.ImagePositionPatient = [*ORIGIN_MM[:2], ORIGIN_MM[2] + 60]

    yield Trial(
        kind="tilt",
        name="an enhanced CT with a gap",
        make=make(change=gap),
        expect=Refused(says=("missing|apart",)),
    )

    def bare(header: Dataset) -> None:
        del header.PerFrameFunctionalGroupsSequence

    yield Trial(
        kind="tilt",
        name="an enhanced CT without positions",
        make=make(change=bare),
        expect=Refused(says=("position|frame",)),
    )


def _jpeg() -> Iterator[Trial]:
    """Lossless JPEG, of which GDCM makes a picture whatever becomes of its bytes."""

    def packed(spoil: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            def change(header: Dataset, number: int) -> None:
                stored = np.frombuffer(header.PixelData, np.uint16).reshape(1, *SHAPE[1:])
                writer = sitk.ImageFileWriter()
                writer.SetFileName(str(folder / "packed.dcm"))
                writer.UseCompressionOn()
                writer.SetCompressor("JPEG")
                writer.Execute(sitk.GetImageFromArray(stored))
                made = dcmread(folder / "packed.dcm")
                (frame,) = generate_frames(made.PixelData, number_of_frames=1)
                header.file_meta.TransferSyntaxUID = made.file_meta.TransferSyntaxUID
                header.PixelData = encapsulate([spoil(frame) if number == 5 else frame])
                header["PixelData"].VR = "OB"

            inside = series(change)(folder)
            (folder / "packed.dcm").unlink()
            return inside

        return make

    def zeroed(start: float, end: float) -> Callable[[bytes], bytes]:
        def spoil(frame: bytes) -> bytes:
            codes = frame.index(b"\xff\xda") + 10
            first, last = (codes + int(share * (len(frame) - codes)) for share in (start, end))
            return frame[:first] + bytes(last - first) + frame[last:]

        return spoil

    yield Trial(kind="sound", name="a series of lossless JPEG", make=packed(bytes), expect=right())
    for name, start, end in (("at the end", 0.5, 1), ("in the middle", 0.3, 0.7), ("in a stretch", 0.2, 0.4)):
        yield Trial(
            kind="damaged",
            name=f"lossless JPEG zeroed {name}",
            make=packed(zeroed(start, end)),
            expect=Refused(says=("008.dcm", "JPEG data are broken")),
        )


def enhanced(uid: str) -> FileDataset:
    """The volume as one file with functional groups (PS3.3, C.7.6.16)."""
    header = slice_header(0)
    header.SOPClassUID = uid
    header.SOPInstanceUID = generate_uid(entropy_srcs=["frames"])
    header.Modality = "MR" if uid == ENHANCED_MR else "CT"
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(header, keyword)
    set_pixels(header, voxels(), INTERCEPT)
    del header.RescaleIntercept, header.RescaleSlope
    header.NumberOfFrames = SHAPE[0]
    shared, measures, plane, scale = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [SPACING_MM[1], SPACING_MM[0]], SPACING_MM[2]
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    scale.RescaleIntercept, scale.RescaleSlope, scale.RescaleType = INTERCEPT, 1, "HU"
    shared.PixelMeasuresSequence = Items([measures])
    shared.PlaneOrientationSequence = Items([plane])
    shared.PixelValueTransformationSequence = Items([scale])
    header.SharedFunctionalGroupsSequence = Items([shared])
    header.PerFrameFunctionalGroupsSequence = Items([_frame(number) for number in range(SHAPE[0])])
    return header


def _frame(number: int) -> Dataset:
    position, content, frame = Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = [*ORIGIN_MM[:2], ORIGIN_MM[2] + number * SPACING_MM[2]]
    content.StackID, content.InStackPositionNumber = "1", number + 1
    content.DimensionIndexValues = [number + 1]
    frame.PlanePositionSequence = Items([position])
    frame.FrameContentSequence = Items([content])
    return frame
