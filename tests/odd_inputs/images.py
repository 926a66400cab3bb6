"""Images: sound ones of each format and type, and others with one thing wrong."""

import gzip
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from odd_inputs.trial import Accepted, Outcome, Refused, Right, Trial
from odd_inputs.volumes import (
    LPS,
    META_TYPES,
    NRRD_TYPES,
    PACKERS,
    SHAPE,
    SPACING_MM,
    TURNED,
    affine,
    meta_header,
    nrrd_header,
    numbers,
    voxels,
    write_meta,
    write_nrrd,
)

Make = Callable[[Path], Path]

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def image_trials() -> Iterator[Trial]:
    yield from _sound_meta()
    yield from _sound_nrrd()
    yield from _sound_nifti()
    yield from _unstated()
    yield from _damaged()
    yield from _contradicting()
    yield from _sizes()
    yield from _values()
    yield from _entries()
    says = ("case.seg.nrrd", "2 layers of segments", "give the image")
    yield Trial(kind="segments", name="layers as image", make=_layers, expect=Refused(says=says))


# Files of each format


def meta(
    dtype: str = "int16", direction: np.ndarray = LPS, data: bytes | None = None, **changes: Any
) -> Make:
    """Makes a MetaImage of the volume, or of other bytes, with entries changed."""

    def make(folder: Path) -> Path:
        content = voxels(dtype).tobytes() if data is None else data
        return write_meta(folder / "case.mha", meta_header(dtype, direction, **changes), content)

    return make


def packed_meta(packed: bytes | None = None, size: int | None = 0, **changes: Any) -> Make:
    """Makes a compressed MetaImage; the size 0 stands for the right one, None for a header without it."""
    data = PACKERS["zlib"](voxels().tobytes()) if packed is None else packed
    stated = str(len(data)) if size == 0 else None if size is None else str(size)
    return meta(data=data, CompressedData="True", CompressedDataSize=stated, **changes)


def nrrd(
    dtype: str = "int16",
    direction: np.ndarray = LPS,
    data: bytes | None = None,
    name: str = "case.nrrd",
    **changes: Any,
) -> Make:
    """Makes an NRRD of the volume, or of other bytes, with fields changed."""

    def make(folder: Path) -> Path:
        encoding = changes.get("encoding", "raw")
        content = PACKERS[encoding](voxels(dtype).tobytes()) if data is None else data
        return write_nrrd(folder / name, nrrd_header(dtype, direction, **changes), content)

    return make


def nifti(
    dtype: str = "int16",
    direction: np.ndarray = LPS,
    name: str = "case.nii.gz",
    codes: tuple[int, int] = (1, 1),
    kind: type = nibabel.Nifti1Image,
    change: Callable[[Any], None] | None = None,
    array: np.ndarray | None = None,
    big: bool = False,
) -> Make:
    """Makes a NIfTI of the volume, or of another array (k, j, i), with codes of qform and sform."""

    def make(folder: Path) -> Path:
        stored = (voxels(dtype) if array is None else array).transpose(2, 1, 0)
        header = kind.header_class(endianness=">" if big else "<")
        image: Any = kind(stored, RAS @ affine(direction), header=header)
        image.set_data_dtype(stored.dtype)
        image.set_qform(RAS @ affine(direction), codes[0])
        image.set_sform(RAS @ affine(direction), codes[1])
        path = folder / name
        nibabel.save(image, path)
        if change is not None:
            packed = name.endswith(".gz")
            content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
            change(content)
            path.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))
        return path

    return make


def patch(offset: int, layout: str, *values: float) -> Callable[[Any], None]:
    """Writes values into a header of NIfTI-1."""

    def change(content: bytearray) -> None:
        struct.pack_into("<" + layout, content, offset, *values)

    return change


PIXDIM, DATATYPE, QFORM_CODE, SROW_X, DIM, VOX_OFFSET, SLOPE = 76, 70, 252, 280, 40, 108, 112
"""Offsets in a header of NIfTI-1 (nifti1.h)."""


# Sound files


def right(dtype: str = "int16", direction: np.ndarray = LPS) -> Right:
    return Right(array=voxels(dtype), affine=affine(direction))


def _sound_meta() -> Iterator[Trial]:
    def trial(name: str, make: Make, expect: Outcome | None = None) -> Trial:
        return Trial(kind="sound", name=f"mha {name}", make=make, expect=expect or right())

    for dtype in META_TYPES:
        yield trial(dtype, meta(dtype), right(dtype))
    yield trial("turned", meta(direction=TURNED), right(direction=TURNED))
    yield trial("big-endian", meta(data=voxels().astype(">i2").tobytes(), BinaryDataByteOrderMSB="True"))
    yield trial("compressed", packed_meta())
    yield trial("compressed without its size", packed_meta(size=None))
    yield trial(
        "Orientation and Position",
        meta(TransformMatrix=None, Offset=None, Orientation="1 0 0 0 1 0 0 0 1", Position="-31.5 12.25 207"),
    )
    yield trial(
        "axes off by rounding",
        meta(TransformMatrix="1 0.0000004 0 0 1 0 0 0 1"),
        Right(array=voxels(), affine=affine(), tolerance=0),
    )

    def detached(folder: Path, packed: bool) -> Path:
        data = voxels().tobytes()
        content, data_name = (PACKERS["zlib"](data), "case.zraw") if packed else (data, "case.raw")
        (folder / data_name).write_bytes(content)
        more = {"CompressedData": "True", "CompressedDataSize": str(len(content))} if packed else {}
        return write_meta(folder / "case.mhd", meta_header(ElementDataFile=data_name, **more))

    yield trial("mhd and raw", lambda folder: detached(folder, False))
    yield trial("mhd and zraw", lambda folder: detached(folder, True))


def _sound_nrrd() -> Iterator[Trial]:
    def trial(name: str, make: Make, expect: Outcome | None = None) -> Trial:
        return Trial(kind="sound", name=f"nrrd {name}", make=make, expect=expect or right())

    for dtype in NRRD_TYPES:
        yield trial(dtype, nrrd(dtype), right(dtype))
    yield trial("turned", nrrd(direction=TURNED), right(direction=TURNED))
    yield trial("gzip", nrrd(encoding="gzip"))
    yield trial("big-endian", nrrd(data=voxels().astype(">i2").tobytes(), endian="big"))
    ras = (RAS @ affine())[:3]
    directions = " ".join("(" + ",".join(f"{x:g}" for x in ras[:, axis]) + ")" for axis in range(3))
    origin = "(" + ",".join(f"{x:g}" for x in ras[:, 3]) + ")"
    yield trial(
        "right-anterior-superior",
        nrrd(space="right-anterior-superior", space_directions=directions, space_origin=origin),
    )

    def detached(folder: Path) -> Path:
        (folder / "case.raw").write_bytes(voxels().tobytes())
        return write_nrrd(folder / "case.nhdr", nrrd_header(data_file="case.raw"))

    yield trial("nhdr and raw", detached)


def _sound_nifti() -> Iterator[Trial]:
    def trial(name: str, make: Make, expect: Outcome | None = None) -> Trial:
        return Trial(kind="sound", name=f"nifti {name}", make=make, expect=expect or right())

    for dtype in ("uint8", "int16", "uint16", "int32", "float32", "float64"):
        yield trial(dtype, nifti(dtype), right(dtype))
    yield trial("turned", nifti(direction=TURNED), right(direction=TURNED))
    yield trial("not compressed", nifti(name="case.nii"))
    yield trial("qform alone", nifti(codes=(1, 0)))
    yield trial("sform alone", nifti(codes=(0, 2)))
    yield trial("version 2", nifti(kind=nibabel.Nifti2Image))
    yield trial("big-endian", nifti(big=True))
    yield trial("fourth axis of one", _four_axes)
    scaled = Right(array=voxels().astype(np.float64) * 2 + 5, affine=affine(), tolerance=1e-3)
    yield trial("slope and intercept", nifti(change=patch(SLOPE, "2f", 2.0, 5.0)), scaled)

    def misnamed(folder: Path) -> Path:
        plain = nifti(name="case.nii")(folder)
        return plain.rename(folder / "case.nii.gz")

    def packed_as_plain(folder: Path) -> Path:
        packed = nifti()(folder)
        return packed.rename(folder / "case.nii")

    for name, make in (("plain named .nii.gz", misnamed), ("compressed named .nii", packed_as_plain)):
        yield Trial(kind="messages", name=f"nifti {name}", make=make, expect=right())


def _four_axes(folder: Path) -> Path:
    stored = voxels().transpose(2, 1, 0)[..., np.newaxis]
    nibabel.save(nibabel.Nifti1Image(stored, RAS @ affine()), folder / "case.nii.gz")
    return folder / "case.nii.gz"


# What is not stated or contradicts


def _unstated() -> Iterator[Trial]:
    def trial(name: str, make: Make, *says: str) -> Trial:
        return Trial(kind="geometry", name=name, make=make, expect=Refused(says=says))

    yield trial("mha without spacing", meta(ElementSpacing=None), "spacing|voxel size")
    yield trial(
        "mha without orientation", meta(TransformMatrix=None), "orientation|direction|TransformMatrix"
    )
    yield trial("mha with two spacings", meta(ElementSpacing="1.5 1.25"), "2 numbers instead of 3")
    yield trial("mha of zero spacing", meta(ElementSpacing="0 1 1"), "spacing|voxel size")
    yield trial("mha of negative spacing", meta(ElementSpacing="-1 1 1"), "spacing|voxel size")
    yield trial("mha of spacing nan", meta(ElementSpacing="nan 1 1"), "case.mha")
    yield trial(
        "mha of a singular matrix",
        meta(TransformMatrix="1 0 0 1 0 0 0 0 1"),
        "axes|direction|determinant|orientation",
    )
    yield trial(
        "mha of sheared axes",
        meta(TransformMatrix="1 0 0 0.3 1 0 0 0 1"),
        "axes|perpendicular|shear|direction",
    )
    yield trial("nrrd without directions", nrrd(space_directions=None), "spacing|direction|orientation")
    yield trial(
        "nrrd with spacings alone",
        nrrd(space=None, space_directions=None, space_origin=None, spacings=numbers(SPACING_MM)),
        "direction|orientation",
    )
    yield trial(
        "nrrd with nothing",
        nrrd(space=None, space_directions=None, space_origin=None),
        "spacing|direction|orientation",
    )
    yield trial("nrrd without space", nrrd(space=None), "space|orientation|direction")
    yield trial("nrrd of spacing zero", nrrd(space_directions="(0,0,0) (0,1,0) (0,0,1)"), "case.nrrd")
    yield trial("nrrd of directions nan", nrrd(space_directions="(nan,0,0) (0,1,0) (0,0,1)"), "case.nrrd")
    yield trial("nrrd of sheared axes", nrrd(space_directions="(1,0,0) (0.3,1,0) (0,0,1)"), "case.nrrd")
    yield trial("nifti with both codes 0", nifti(codes=(0, 0)), "qform|sform|orientation|codes")
    for index, value in enumerate((0.0, -1.5, float("nan"), float("inf"))):
        make = nifti(codes=(1, 0), name="case.nii", change=patch(PIXDIM + 4, "f", value))
        yield trial(f"nifti of pixdim {value} ({index})", make, "voxel size|spacing")
    yield trial(
        "nifti of affine nan", nifti(codes=(0, 1), change=patch(SROW_X, "f", float("nan"))), "case.nii.gz"
    )
    yield trial("nifti of an affine column 0", nifti(codes=(0, 1), change=_no_column), "case.nii.gz")


def _no_column(content: bytearray) -> None:
    for row in range(3):
        struct.pack_into("<f", content, SROW_X + 16 * row, 0.0)


def _layers(folder: Path) -> Path:
    """Two layers of segments in the place of an image."""
    header = nrrd_header("uint8", dimension="4", kinds="list domain domain domain")
    header |= {"sizes": f"2 {header['sizes']}", "space directions": f"none {header['space directions']}"}
    data = np.stack([voxels("uint8") > 100] * 2, axis=-1).tobytes()
    return write_nrrd(folder / "case.seg.nrrd", header, data, {"Segment0_Name": "spine"})


def _contradicting() -> Iterator[Trial]:
    def trial(name: str, make: Make, *says: str) -> Trial:
        return Trial(kind="geometry", name=name, make=make, expect=Refused(says=says))

    yield trial(
        "nifti of pixdim against sform",
        nifti(change=patch(PIXDIM + 4, "3f", 3.0, 3.0, 3.0)),
        "pixdim|sform|voxel size",
    )


# Damage


def _damaged() -> Iterator[Trial]:
    def trial(name: str, make: Make, *says: str) -> Trial:
        return Trial(kind="damaged", name=name, make=make, expect=Refused(says=says))

    raw = voxels().tobytes()
    for format_name, pack, make_file in (
        ("mha", PACKERS["zlib"], lambda data: packed_meta(packed=data)),
        ("mha without its size", PACKERS["zlib"], lambda data: packed_meta(packed=data, size=None)),
        ("nrrd", PACKERS["gzip"], lambda data: nrrd(data=data, encoding="gzip")),
    ):
        whole = pack(raw)
        half = len(whole) // 2
        yield trial(
            f"{format_name} zeroed at the end", make_file(whole[:half] + bytes(len(whole) - half)), "case"
        )
        yield trial(f"{format_name} cut", make_file(whole[:half]), "case")
        broken = whole[:half] + bytes(b ^ 0x55 for b in whole[half : half + 16]) + whole[half + 16 :]
        yield trial(f"{format_name} broken in a block", make_file(broken), "case")
        yield trial(f"{format_name} with fewer voxels", make_file(pack(raw[:-200])), "case")
        flipped = whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]
        yield trial(f"{format_name} with another checksum", make_file(flipped), "case")
        yield trial(f"{format_name} of nothing", make_file(b""), "case")
    # Its stream is whole, and says so itself by its checksum.
    yield Trial(
        kind="damaged", name="mha whose stated size is wrong", make=packed_meta(size=10), expect=right()
    )
    yield trial("mha raw and cut", meta(data=raw[:-100]), "case.mha")
    yield trial("nrrd raw and cut", nrrd(data=raw[:-100]), "case.nrrd")

    def cut(kept: float, name: str) -> Make:
        def make(folder: Path) -> Path:
            path = nifti(name=name)(folder)
            content = path.read_bytes()
            path.write_bytes(content[: int(len(content) * kept)])
            return path

        return make

    for name in ("case.nii", "case.nii.gz"):
        for kept in (0.0, 0.02, 0.5, 0.98):
            yield trial(f"{name} cut at {kept:.0%}", cut(kept, name), name)
    yield trial("nifti of an unknown type", nifti(change=patch(DATATYPE, "h", 9999)), "of type 9999")

    def text(ending: str) -> Make:
        def make(folder: Path) -> Path:
            path = folder / f"case{ending}"
            path.write_text("see the other file\n")
            return path

        return make

    for ending in (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr"):
        yield trial(f"text named {ending}", text(ending), f"case{ending}")


# Sizes


def _sizes() -> Iterator[Trial]:
    def trial(name: str, make: Make, *says: str) -> Trial:
        return Trial(kind="sizes", name=name, make=make, expect=Refused(says=says))

    huge = "1500 1500 1500"
    yield trial("mha that claims 1500^3", meta(DimSize=huge, data=bytes(300)), "case.mha")
    yield trial("compressed mha that claims 1500^3", packed_meta(DimSize=huge), "case.mha")
    yield trial("nrrd that claims 1500^3", nrrd(sizes=huge, data=bytes(250)), "case.nrrd")
    yield trial("gzip nrrd that claims 1500^3", nrrd(sizes=huge, encoding="gzip"), "case.nrrd")
    yield trial("nrrd that claims 1e9 in one row", nrrd(sizes="1000000000 1 1", data=bytes(250)), "case.nrrd")
    yield trial("nrrd of negative size", nrrd(sizes="-5 10 10", data=bytes(250)), "case.nrrd")
    yield trial(
        "nifti that claims 1500^3", nifti(change=patch(DIM + 2, "3h", 1500, 1500, 1500)), "case.nii.gz"
    )
    yield trial(
        "plain nifti that claims 32767^3",
        nifti(name="case.nii", change=patch(DIM + 2, "3h", 32767, 32767, 32767)),
        "case.nii",
    )
    yield trial("nifti of negative size", nifti(change=patch(DIM + 2, "3h", -4, 14, 12)), "case.nii.gz")
    yield trial("mha of 0.001 mm", meta(ElementSpacing="0.001 0.001 0.001"), r"mm")
    yield trial("mha of 100 mm", meta(ElementSpacing="100 100 100"), r"mm")
    yield trial("mha of an axis of 0", meta(DimSize="0 12 14"), "case.mha")

    def endless(folder: Path) -> Path:
        path = nifti()(folder)
        with path.open("ab") as file:
            zeros = gzip.compress(bytes(2**26))
            for _ in range(32):
                file.write(zeros)
        return path

    yield Trial(
        kind="sizes",
        name="2 GB of gzip after the last voxel",
        make=endless,
        expect=Refused(says=("case.nii.gz",)),
    )


# Values


def _values() -> Iterator[Trial]:
    hu = voxels().astype(np.float32)
    share = (hu - hu.min()) / float(np.ptp(hu))

    def ct(array: np.ndarray) -> Make:
        def make(folder: Path) -> Path:
            (folder / "cases.csv").write_text("case,modality\ncase,CT\n")
            return nifti(array=array)(folder)

        return make

    def trial(name: str, make: Make, *says: str) -> Trial:
        return Trial(kind="values", name=name, make=make, expect=Accepted(says=says))

    scaled = r"HU"
    yield trial("CT in [0, 1]", ct(share), scaled)
    yield trial("CT in [-1, 1]", ct(2 * share - 1), scaled)
    yield trial("CT as attenuation", ct(((hu + 1024) / 1000 * 0.02).astype(np.float32)), scaled)
    yield trial("CT in [0, 255]", ct((255 * share).astype(np.uint8)), scaled)
    yield trial("CT of air alone", ct((hu / 8 - 890).astype(np.int16)), scaled, "air alone")
    yield trial("CT with water at 1024", ct((hu + 1024).clip(0).astype(np.uint16)), "1024")
    for value in (0, 1000):
        yield Trial(
            kind="checks",
            name=f"every voxel {value}",
            make=ct(np.full(SHAPE, value, np.int16)),
            expect=Accepted(says=("value",)),
        )
    for name, value in (("nan", np.nan), ("inf", np.inf), ("1e39", 1e39)):
        array = hu.astype(np.float64)
        array[3, 4, 5] = value
        yield Trial(
            kind="values", name=f"a voxel of {name}", make=ct(array), expect=Refused(says=("finite|float32",))
        )


# Entries of a folder


def _entries() -> Iterator[Trial]:
    def beside(name: str, spoil: Callable[[Path], object], *says: str) -> Trial:
        """A folder with one good image and one bad entry: the good one is predicted, the other named."""

        def make(folder: Path) -> Path:
            inside = folder / "images"
            inside.mkdir()
            nifti(name="good.nii.gz")(inside)
            spoil(inside)
            return inside

        return Trial(kind="entries", name=name, make=make, expect=Refused(says=("1 of 2|good", *says)))

    yield beside("link to itself", lambda f: (f / "loop.nii.gz").symlink_to("loop.nii.gz"), "loop")
    yield beside("link to nothing", lambda f: (f / "link.nii.gz").symlink_to("gone.nii.gz"), "link")
    yield beside("FIFO", lambda f: os.mkfifo(f / "pipe.nii.gz"), "pipe")
    yield beside("link to a device", lambda f: (f / "zero.nii.gz").symlink_to("/dev/zero"), "zero")
    yield beside("empty file", lambda f: (f / "empty.nii.gz").write_bytes(b""), "empty")
    yield beside("unreadable text", lambda f: (f / "text.mha").write_bytes(b"\xff\xfe\x00"), "text")

    def names(kind: str, file: str) -> Iterator[Trial]:
        def mhd(folder: Path) -> Path:
            return write_meta(folder / "case.mhd", meta_header(ElementDataFile=file))

        def nhdr(folder: Path) -> Path:
            return write_nrrd(folder / "case.nhdr", nrrd_header(data_file=file))

        for ending, make in (("mhd", mhd), ("nhdr", nhdr)):
            yield Trial(
                kind="entries",
                name=f"{ending} that names {kind}",
                make=make,
                expect=Refused(says=("case",)),
                hostile=True,
            )

    yield from names("a device", "/dev/zero")
    yield from names("a file of the machine", "/etc/passwd")
    yield from names("a file above its folder", "../../secret.raw")
    yield from names("a file that is not there", "gone.raw")

    def fifo_data(folder: Path) -> Path:
        os.mkfifo(folder / "case.raw")
        return write_meta(folder / "case.mhd", meta_header(ElementDataFile="case.raw"))

    yield Trial(
        kind="entries",
        name="mhd that names a FIFO",
        make=fifo_data,
        expect=Refused(says=("case",)),
        hostile=True,
    )

    def linked_data(folder: Path) -> Path:
        outside = folder.parent / f"{folder.name}-secret"
        outside.write_bytes(voxels().tobytes())
        (folder / "case.raw").symlink_to(outside)
        return write_meta(folder / "case.mhd", meta_header(ElementDataFile="case.raw"))

    yield Trial(
        kind="entries",
        name="mhd whose data is a link out of its folder",
        make=linked_data,
        expect=Refused(says=("case",)),
        hostile=True,
    )
    listed = {"a list": "LIST", "a pattern": "case_%03d.raw 1 14 1"}
    for name, value in listed.items():
        yield Trial(
            kind="entries",
            name=f"mhd that names {name}",
            make=lambda folder, value=value: write_meta(
                folder / "case.mhd", meta_header(ElementDataFile=value)
            ),
            expect=Refused(says=("case",)),
        )
