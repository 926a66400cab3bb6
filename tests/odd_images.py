"""Image files as they come: sound ones of unusual form, all of the same volume, and what must be refused."""

import bz2
import gzip
import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

SHAPE = (9, 12, 10)
"""Voxels along k, j, i of the volume that every sound file holds."""

SPACING = (0.5, 0.75, 2.0)
"""Voxel size along i, j, k in mm."""

ORIGIN = (-12.5, 7.25, 100.0)

VOXELS = np.random.default_rng(7).integers(-900, 900, SHAPE).astype("<i2")

RAW = VOXELS.tobytes()

Maker = Callable[[Path], Path]

META = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = -12.5 7.25 100
ElementSpacing = 0.5 0.75 2
DimSize = 10 12 9
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""

NRRD = """NRRD0004
# a comment
type: short
dimension: 3
space: left-posterior-superior
sizes: 10 12 9
space directions: (0.5,0,0) (0,0.75,0) (0,0,2)
kinds: domain domain domain
endian: little
encoding: raw
space origin: (-12.5,7.25,100)

"""

PACKED = META.replace("CompressedData = False", "CompressedData = True")
GZIPPED = NRRD.replace("encoding: raw", "encoding: gzip")
BZIPPED = NRRD.replace("encoding: raw", "encoding: bzip2")


def file(name: str, header: str = "", data: bytes = b"", **others: bytes) -> Maker:
    """A file of a header and data, with others beside it."""

    def make(folder: Path) -> Path:
        for other, content in others.items():
            (folder / other.replace("_", ".")).write_bytes(content)
        path = folder / name
        path.write_bytes(header.encode() + data)
        return path

    return make


def nifti(name: str = "a.nii.gz", edit: Callable[[bytearray], bytes | None] | None = None) -> Maker:
    """A NIfTI file whose bytes, uncompressed, are edited."""

    def make(folder: Path) -> Path:
        image = sitk.GetImageFromArray(VOXELS.astype(np.int16))
        image.SetSpacing(SPACING)
        image.SetOrigin(ORIGIN)
        sitk.WriteImage(image, str(folder / "plain.nii"))
        content = bytearray((folder / "plain.nii").read_bytes())
        (folder / "plain.nii").unlink()
        changed = bytes((edit(content) if edit else None) or content)
        path = folder / name
        path.write_bytes(gzip.compress(changed) if name.endswith(".gz") else changed)
        return path

    return make


def put(offset: int, form: str, *values: float) -> Callable[[bytearray], None]:
    """An edit that packs values into a NIfTI header."""
    return lambda content: struct.pack_into(form, content, offset, *values)


def both(*edits: Callable[[bytearray], bytes | None]) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        for edit in edits:
            edit(content)

    return change


def bytes_edited(maker: Maker, edit: Callable[[bytes], bytes], name: str | None = None) -> Maker:
    """A file whose bytes are edited as they lie on the disk."""

    def make(folder: Path) -> Path:
        path = maker(folder)
        data = path if name is None else folder / name
        data.write_bytes(edit(data.read_bytes()))
        return path

    return make


def zeroed_end(content: bytes) -> bytes:
    return content[:-300] + bytes(300)


def broken(content: bytes) -> bytes:
    middle = len(content) - 700
    return content[:middle] + bytes(b ^ 0x5A for b in content[middle : middle + 40]) + content[middle + 40 :]


def wrong_checksum(content: bytes) -> bytes:
    return content[:-6] + bytes(b ^ 0xFF for b in content[-6:])


def cut(content: bytes) -> bytes:
    return content[:-500]


def big_endian(content: bytearray) -> bytes:
    """nibabel swaps the header."""
    image = nibabel.Nifti1Image.from_bytes(bytes(content))
    swapped = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header.as_byteswapped(">"))
    swapped.header.set_data_dtype(">i2")
    return swapped.to_bytes()


def second_nifti(content: bytearray) -> bytes:
    image = nibabel.Nifti1Image.from_bytes(bytes(content))
    return nibabel.Nifti2Image(np.asarray(image.dataobj), image.affine).to_bytes()


def scaled(content: bytearray) -> bytes:
    """Half of each value with a slope of two; odd ones are lost, so that the whole file is made anew."""
    halves = (VOXELS.astype(np.int32) * 2).astype("<i2")
    struct.pack_into("<2f", content, 112, 0.5, 0.0)
    return bytes(content[:352]) + halves.tobytes()


def detached(name: str, header: str, data: bytes, into: str) -> Maker:
    def make(folder: Path) -> Path:
        (folder / into).parent.mkdir(exist_ok=True)
        (folder / into).write_bytes(data)
        path = folder / name
        path.write_text(header)
        return path

    return make


def sliced(name: str, header: str) -> Maker:
    """Voxels in one file for each slice."""

    def make(folder: Path) -> Path:
        for index, plane in enumerate(VOXELS):
            (folder / f"s{index:03d}.raw").write_bytes(plane.tobytes())
        path = folder / name
        path.write_text(header)
        return path

    return make


SLICES = "\n".join(f"s{index:03d}.raw" for index in range(9)) + "\n"


def data_file(header: str, name: str) -> str:
    if header.startswith("NRRD"):
        return header.rstrip("\n") + f"\ndata file: {name}\n"
    return header.replace("= LOCAL", f"= {name}")


FLIPPED = NRRD.replace("left-posterior-superior", "RAS").replace(
    "(0.5,0,0) (0,0.75,0)", "(-0.5,0,0) (0,-0.75,0)"
)
FLIPPED = FLIPPED.replace("(-12.5,7.25,100)", "(12.5,-7.25,100)")

SOUND: dict[str, Maker] = {
    "mha raw": file("a.mha", META, RAW),
    "mha compressed": file("a.mha", PACKED, zlib.compress(RAW)),
    "mha gzip": file("a.mha", PACKED, gzip.compress(RAW)),
    "mha with its compressed size": file(
        "a.mha",
        PACKED.replace("DimSize", f"CompressedDataSize = {len(zlib.compress(RAW))}\nDimSize"),
        zlib.compress(RAW),
    ),
    "mha big endian": file(
        "a.mha", META.replace("MSB = False", "MSB = True"), VOXELS.astype(">i2").tobytes()
    ),
    "mha in capitals": file("a.MHA", META, RAW),
    "mha with windows ends of lines": file("a.mha", META.replace("\n", "\r\n"), RAW),
    "mha of text": file(
        "a.mha",
        META.replace("BinaryData = True", "BinaryData = False"),
        " ".join(map(str, VOXELS.ravel())).encode(),
    ),
    "mha of four axes": file(
        "a.mha",
        META.replace("NDims = 3", "NDims = 4")
        .replace("= 1 0 0 0 1 0 0 0 1", "= 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1")
        .replace("25 100", "25 100 0")
        .replace("0.75 2", "0.75 2 1")
        .replace("12 9", "12 9 1"),
        RAW,
    ),
    "mha with padding": file("a.mha", META, RAW + bytes(512)),
    "mha with an entry twice alike": file("a.mha", META.replace("DimSize", "NDims =  3\nDimSize"), RAW),
    "mha with the place of its voxels": file(
        "a.mha",
        (placed := META.replace("DimSize", "HeaderSize = 000\nDimSize")).replace("000", f"{len(placed):03d}"),
        RAW,
    ),
    "nrrd with keys named as fields": file(
        "a.nrrd", NRRD.replace("encoding", "type:=CT\nspace:=RAS\nsizes:=1 1 1\nencoding"), RAW
    ),
    "mhd": detached("a.mhd", data_file(META, "a.raw"), RAW, "a.raw"),
    "mhd compressed": detached("a.mhd", data_file(PACKED, "a.zraw"), zlib.compress(RAW), "a.zraw"),
    "mhd with data in a folder": detached("a.mhd", data_file(META, "data/a.raw"), RAW, "data/a.raw"),
    "mhd with a header to skip": detached(
        "a.mhd",
        data_file(META.replace("DimSize", "HeaderSize = 99\nDimSize"), "a.raw"),
        bytes(99) + RAW,
        "a.raw",
    ),
    "mhd with data at the end": detached(
        "a.mhd",
        data_file(META.replace("DimSize", "HeaderSize = -1\nDimSize"), "a.raw"),
        bytes(9999) + RAW,
        "a.raw",
    ),
    "mhd with a list": sliced("a.mhd", data_file(META, "LIST") + SLICES),
    "mhd with a pattern": sliced("a.mhd", data_file(META, "s%03d.raw 0 8 1")),
    "nrrd raw": file("a.nrrd", NRRD, RAW),
    "nrrd gzip": file("a.nrrd", GZIPPED, gzip.compress(RAW)),
    "nrrd bzip2": file("a.nrrd", BZIPPED, bz2.compress(RAW)),
    "nrrd text of whole numbers with points": file(
        "a.nrrd", NRRD.replace("raw", "ascii"), "\n".join(f"{n}.0" for n in VOXELS.ravel()).encode()
    ),
    "mhd with padding": detached("a.mhd", data_file(META, "a.raw"), RAW + bytes(512), "a.raw"),
    "nhdr with padding": detached("a.nhdr", data_file(NRRD, "a.raw"), RAW + bytes(100), "a.raw"),
    "mhd with anything behind, as it states": detached(
        "a.mhd",
        data_file(META.replace("DimSize", "HeaderSize = 0\nDimSize"), "a.raw"),
        RAW + b"x" * 99,
        "a.raw",
    ),
    "nrrd with spacings beside directions": file(
        "a.nrrd", NRRD.replace("kinds", "spacings: 0.5 nan 2.001\nkinds"), RAW
    ),
    "nrrd text": file("a.nrrd", NRRD.replace("raw", "ascii"), " ".join(map(str, VOXELS.ravel())).encode()),
    "nrrd big endian": file("a.nrrd", NRRD.replace("little", "big"), VOXELS.astype(">i2").tobytes()),
    "nrrd in RAS": file("a.nrrd", FLIPPED, RAW),
    "nrrd with bytes to skip": file(
        "a.nrrd", NRRD.replace("encoding", "byte skip: 77\nencoding"), bytes(77) + RAW
    ),
    "nrrd with bytes to skip in gzip": file(
        "a.nrrd", GZIPPED.replace("encoding", "byte skip: 77\nencoding"), gzip.compress(bytes(77) + RAW)
    ),
    "nrrd with data at the end": file(
        "a.nrrd", NRRD.replace("encoding", "byteskip: -1\nencoding"), bytes(5555) + RAW
    ),
    "nrrd with lines to skip": file(
        "a.nrrd", NRRD.replace("encoding", "line skip: 2\nencoding"), b"x\ny\n" + RAW
    ),
    "nrrd with one value along a fourth axis": file(
        "a.nrrd",
        NRRD.replace("dimension: 3", "dimension: 4")
        .replace("10 12 9", "1 10 12 9")
        .replace("(0.5", "none (0.5"),
        RAW,
    ),
    "seg.nrrd with segments": file("a.seg.nrrd", NRRD.replace("\n\n", "\nSegment0_Name:=L1: left\n\n"), RAW),
    "nhdr": detached("a.nhdr", data_file(NRRD, "a.raw"), RAW, "a.raw"),
    "nhdr gzip": detached("a.nhdr", data_file(GZIPPED, "a.raw.gz"), gzip.compress(RAW), "a.raw.gz"),
    "nhdr with a list": sliced("a.nhdr", data_file(NRRD, "LIST") + SLICES),
    "nhdr with a pattern": sliced("a.nhdr", data_file(NRRD, "s%03d.raw 0 8 1")),
    "nii.gz": nifti(),
    "nii": nifti("a.nii"),
    "nii big endian": nifti("a.nii", big_endian),
    "nifti 2": nifti("a.nii.gz", second_nifti),
    "nii scaled": nifti("a.nii.gz", scaled),
    "nii by sform alone": nifti("a.nii", put(252, "<h", 0)),
    "nii by qform alone": nifti("a.nii", put(254, "<h", 0)),
    "nii by a qform with a qfac of 0": nifti("a.nii", both(put(76, "<f", 0.0), put(254, "<h", 0))),
    "nii with padding": nifti("a.nii", lambda content: bytes(content) + bytes(512)),
    "nii.gz that is not compressed": bytes_edited(nifti(), gzip.decompress),
    "nii that is compressed": bytes_edited(nifti("a.nii"), gzip.compress),
    "nii.gz of several streams": bytes_edited(
        nifti(),
        lambda content: b"".join(
            gzip.compress(gzip.decompress(content)[start : start + 500]) for start in range(0, 2600, 500)
        ),
    ),
    "nii.gz with zeros behind": bytes_edited(nifti(), lambda content: content + bytes(512)),
}
"""Makers of sound files; each holds `VOXELS` at `SPACING` and `ORIGIN`, axes along L, P and S."""


def without(header: str, *keys: str) -> str:
    return "\n".join(line for line in header.split("\n") if not line.startswith(keys))


def claiming(name: str, header: str, data: bytes) -> Maker:
    huge = header.replace("10 12 9", "1500 1500 1500")
    return file(name, huge, data)


def pipe_at(name: str, maker: Maker | None = None) -> Maker:
    """A named pipe, perhaps beside a header that names it."""

    def make(folder: Path) -> Path:
        if not hasattr(os, "mkfifo"):
            pytest.skip("needs named pipes")
        os.mkfifo(folder / name)
        return maker(folder) if maker else folder / name

    return make


def link_at(name: str, target: str, maker: Maker | None = None) -> Maker:
    def make(folder: Path) -> Path:
        (folder / name).symlink_to(target)
        return maker(folder) if maker else folder / name

    return make


def secret_beside(maker: Maker) -> Maker:
    """A file with sound data outside of the image's folder."""

    def make(folder: Path) -> Path:
        inner = folder / "inner"
        inner.mkdir()
        (folder / "secret.raw").write_bytes(RAW)
        for index, plane in enumerate(VOXELS):
            (folder / f"s{index:03d}.raw").write_bytes(plane.tobytes())
        return maker(inner)

    return make


def absolute(name: str, header: str) -> Maker:
    """A header that names a sound file by its absolute path."""

    def make(folder: Path) -> Path:
        (folder / "secret.raw").write_bytes(RAW)
        (folder / "inner").mkdir()
        path = folder / "inner" / name
        path.write_text(data_file(header, str(folder / "secret.raw")))
        return path

    return make


def surplus_stream(folder: Path) -> Path:
    """Sound voxels, and behind them in the same stream as many zeros as a hostile file has room for."""
    maker = nifti("a.nii.gz", lambda content: bytes(content) + bytes(50_000_000))
    return maker(folder)


UNREAD = r"expected voxels that AutoSpine reads in .*, found .*; convert the image"
DAMAGED = r"damaged: .*; copy or convert it again"
TRUNCATED = r"bytes of (compressed )?voxels in .*, found .*; copy it again"
LONGER = r"bytes of voxels in .*, found more: .*; convert it again"
TWICE = r"damaged: its header has .* twice, as .*; copy or convert it again"
OUTSIDE = r"expected the voxels of .* in its own folder, found .*; copy the file there"

_COMPRESSED = {
    "mha": (file("a.mha", PACKED, zlib.compress(RAW)), None),
    "mhd": (detached("a.mhd", data_file(PACKED, "a.zraw"), zlib.compress(RAW), "a.zraw"), "a.zraw"),
    "nrrd": (file("a.nrrd", GZIPPED, gzip.compress(RAW)), None),
    "nrrd of bzip2": (file("a.nrrd", BZIPPED, bz2.compress(RAW)), None),
    "nhdr": (detached("a.nhdr", data_file(GZIPPED, "a.raw.gz"), gzip.compress(RAW), "a.raw.gz"), "a.raw.gz"),
    "nii.gz": (nifti(), None),
}

REFUSED: dict[str, tuple[Maker, str]] = {
    **{
        f"{kind}: {edit.__name__}": (bytes_edited(maker, edit, name), f"{DAMAGED}|{TRUNCATED}")
        for kind, (maker, name) in _COMPRESSED.items()
        for edit in (zeroed_end, broken, wrong_checksum, cut)
    },
    "mha: fewer voxels in a sound stream": (file("a.mha", PACKED, zlib.compress(RAW[:-50])), TRUNCATED),
    "nrrd: fewer voxels in a sound stream": (file("a.nrrd", GZIPPED, gzip.compress(RAW[:-50])), TRUNCATED),
    "nrrd: fewer voxels in sound bzip2": (file("a.nrrd", BZIPPED, bz2.compress(RAW[:-50])), TRUNCATED),
    "mha: more voxels than stated": (file("a.mha", PACKED, zlib.compress(RAW * 4)), LONGER),
    "nrrd: more voxels than stated": (file("a.nrrd", GZIPPED, gzip.compress(RAW * 4)), LONGER),
    "nii.gz: more voxels than stated": (nifti("a.nii.gz", lambda c: bytes(c) + RAW * 3), LONGER),
    "nii.gz: data without end": (surplus_stream, LONGER),
    "mha: stated compressed size": (
        file("a.mha", PACKED.replace("DimSize", "CompressedDataSize = 99999\nDimSize"), zlib.compress(RAW)),
        TRUNCATED,
    ),
    "mha: raw cut": (file("a.mha", META, RAW[:-100]), TRUNCATED),
    "mhd: raw cut": (detached("a.mhd", data_file(META, "a.raw"), RAW[:-100], "a.raw"), TRUNCATED),
    "nrrd: raw cut": (file("a.nrrd", NRRD, RAW[:-100]), TRUNCATED),
    "nhdr: raw cut": (detached("a.nhdr", data_file(NRRD, "a.raw"), RAW[:-100], "a.raw"), TRUNCATED),
    "nii: raw cut": (nifti("a.nii", lambda content: bytes(content[:-100])), TRUNCATED),
    **{
        f"{kind}: an axis stated too short by one": (make, LONGER)
        for kind, make in {
            "mha": file("a.mha", META.replace("10 12 9", "9 12 9"), RAW),
            "mha compressed": file("a.mha", PACKED.replace("10 12 9", "10 11 9"), zlib.compress(RAW)),
            "nrrd": file("a.nrrd", NRRD.replace("10 12 9", "10 12 8"), RAW),
            "nii": nifti("a.nii", put(42, "<h", 9)),
            "nii.gz": nifti("a.nii.gz", put(44, "<h", 11)),
        }.items()
    },
    "nii: zeros that may be voxels": (nifti("a.nii", lambda c: bytes(c[:-400]) + bytes(900)), LONGER),
    "nii: half of the bytes of a voxel": (nifti("a.nii", put(70, "<2h", 2, 8)), LONGER),
    "nii: voxels within the marks of extensions": (nifti("a.nii", put(108, "<f", 348.0)), DAMAGED),
    # What a header states twice.
    "mha: two spacings": (
        file("a.mha", META.replace("DimSize", "ElementSpacing = 9 9 9\nDimSize"), RAW),
        TWICE,
    ),
    "mha: two orientations": (
        file("a.mha", META.replace("DimSize", "Orientation = 0 1 0 1 0 0 0 0 1\nDimSize"), RAW),
        TWICE,
    ),
    "mha: two origins": (file("a.mha", META.replace("DimSize", "Position = 1 2 3\nDimSize"), RAW), TWICE),
    "nrrd: two types": (file("a.nrrd", NRRD.replace("encoding", "type: ushort\nencoding"), RAW), TWICE),
    "nrrd: two spaces": (file("a.nrrd", NRRD.replace("encoding", "space: RAS\nencoding"), RAW), TWICE),
    "mha: two places of its voxels": (
        file("a.mha", META.replace("DimSize", "HeaderSize = 10\nDimSize"), RAW),
        DAMAGED,
    ),
    "mha: raw too long": (file("a.mha", META, RAW * 4), LONGER),
    "mhd: raw too long": (detached("a.mhd", data_file(META, "a.raw"), RAW * 4, "a.raw"), LONGER),
    "nrrd: raw too long": (file("a.nrrd", NRRD, RAW * 4), LONGER),
    "nrrd: text with too few numbers": (
        file("a.nrrd", NRRD.replace("raw", "ascii"), b"10 " * 1079),
        "1080 numbers in",
    ),
    "nrrd: text with words": (file("a.nrrd", NRRD.replace("raw", "ascii"), b"one " * 1080), DAMAGED),
    "mha: no data": (file("a.mha", PACKED), TRUNCATED),
    # Sizes that no data of the file can have.
    "mha: claims 1500 voxels each way": (claiming("a.mha", META, RAW), TRUNCATED),
    "mha: claims 1500 compressed voxels": (claiming("a.mha", PACKED, zlib.compress(RAW)), TRUNCATED),
    "mhd: claims 1500 voxels each way": (
        detached("a.mhd", data_file(META.replace("10 12 9", "1500 1500 1500"), "a.raw"), RAW, "a.raw"),
        TRUNCATED,
    ),
    "nrrd: claims 1500 voxels each way": (claiming("a.nrrd", NRRD, RAW), TRUNCATED),
    "nrrd: claims 1500 compressed voxels": (claiming("a.nrrd", GZIPPED, gzip.compress(RAW)), TRUNCATED),
    "nrrd: claims 10^15 voxels": (
        file("a.nrrd", BZIPPED.replace("10 12 9", "100000 100000 100000"), bz2.compress(RAW)),
        r"GB of free memory for the voxels of .*; close other programs, or crop",
    ),
    "nrrd: claims 1500 voxels of text": (
        claiming("a.nrrd", NRRD.replace("raw", "text"), b"1 2 3"),
        TRUNCATED,
    ),
    "nii.gz: claims 1500 voxels each way": (nifti("a.nii.gz", put(42, "<3h", 1500, 1500, 1500)), TRUNCATED),
    "nii: claims 1500 voxels each way": (nifti("a.nii", put(42, "<3h", 1500, 1500, 1500)), TRUNCATED),
    "nii: voxels begin at the end of the world": (nifti("a.nii", put(108, "<f", 3e38)), DAMAGED),
    "nii: voxels begin nowhere": (nifti("a.nii", put(108, "<f", np.nan)), DAMAGED),
    "nii: voxels begin within the header": (nifti("a.nii", put(108, "<f", 8)), DAMAGED),
    "mha: sizes beyond numbers": (
        file("a.mha", META.replace("12 9", "12 9999999999999999999"), RAW),
        DAMAGED,
    ),
    "mha: negative size": (file("a.mha", META.replace("12 9", "-12 9"), RAW), "voxels along every axis"),
    "nrrd: no sizes": (file("a.nrrd", without(NRRD, "sizes"), RAW), DAMAGED),
    # Statements that are missing.
    "mha: no spacing": (
        file("a.mha", without(META, "ElementSpacing"), RAW),
        "the spacing of the image in .*ElementSpacing",
    ),
    "mha: no orientation": (
        file("a.mha", without(META, "TransformMatrix"), RAW),
        "the orientation of the image in .*TransformMatrix",
    ),
    "mha: letters instead of an orientation": (
        file(
            "a.mha", META.replace("TransformMatrix = 1 0 0 0 1 0 0 0 1", "AnatomicalOrientation = RAI"), RAW
        ),
        "the orientation of the image in .*TransformMatrix",
    ),
    "mha: short matrix": (
        file("a.mha", META.replace("0 0 0 1\nOff", "\nOff"), RAW),
        "TransformMatrix has 5 numbers instead of 9",
    ),
    "nrrd: no space": (
        file("a.nrrd", without(NRRD, "space:"), RAW),
        "the orientation of the image in .*space",
    ),
    "nrrd: a space without a body": (
        file("a.nrrd", NRRD.replace("left-posterior-superior", "scanner-xyz"), RAW),
        "the orientation of the image in .*space",
    ),
    "nrrd: no directions": (
        file("a.nrrd", without(NRRD, "space directions"), RAW),
        "the spacing and orientation of the image in .*space directions",
    ),
    "nrrd: spacings alone": (
        file("a.nrrd", without(NRRD, "space").replace("kinds", "spacings: 0.5 0.75 2\nkinds"), RAW),
        "the orientation of the image in .*space directions",
    ),
    "nii: both codes 0": (nifti("a.nii", put(252, "<2h", 0, 0)), "the orientation of the image in .*sform"),
    "nii.gz: both codes 0": (
        nifti("a.nii.gz", put(252, "<2h", 0, 0)),
        "the orientation of the image in .*sform",
    ),
    "nii: Analyze": (
        nifti("a.nii", both(put(252, "<2h", 0, 0), put(344, "<4s", b""))),
        "Analyze.* orientation",
    ),
    "nii: header of a pair": (nifti("a.nii", put(344, "<4s", b"ni1")), r"another file \(\.img\)"),
    # Statements that contradict each other or make no sense.
    "nii: sform and qform of opposite sides": (
        nifti("a.nii", put(280, "<f", 0.5)),
        "one orientation in .*, found RPS in its sform and LPS in its qform|found .* in its sform",
    ),
    "nii: quaternion that is no rotation": (
        nifti("a.nii", both(put(254, "<h", 0), put(256, "<3f", 3, 3, 3))),
        "qform makes no sense",
    ),
    "nii: intercept of NaN": (nifti("a.nii", put(112, "<2f", 1, np.nan)), "scl_slope or scl_inter makes no"),
    "nii: intercept without end": (nifti("a.nii", put(112, "<2f", 2, np.inf)), "scl_slope or scl_inter"),
    "nii: slope beyond numbers": (nifti("a.nii", put(112, "<2f", 3e38, 0)), "finite voxels in .*; replace"),
    "nii: unknown unit of length": (nifti("a.nii", put(123, "<B", 5)), "xyzt_units has .* 5, which NIfTI"),
    "nii: sform without a third axis": (
        nifti("a.nii", put(296, "<8f", 0, 0.75, 2, 0, 0, 0, 0, 100)),
        "one orientation in .*[?] in its sform",
    ),
    "nii: sform with NaN": (nifti("a.nii", put(280, "<f", np.nan)), "positive voxel sizes|finite"),
    "mha: other units": (
        file("a.mha", META.replace("DimSize", "DistanceUnits = cm\nDimSize"), RAW),
        "lengths in mm in .*cm",
    ),
    "nrrd: other units": (
        file("a.nrrd", NRRD.replace("kinds", 'space units: "cm" "cm" "cm"\nkinds'), RAW),
        "lengths in mm in .*cm",
    ),
    "mha: intensities that are scaled": (
        file("a.mha", META.replace("DimSize", "ElementToIntensityFunctionSlope = 2\nDimSize"), RAW),
        "voxels that are intensities in .*scaled by 2",
    ),
    "mha: negative spacing": (
        file("a.mha", META.replace("= 0.5", "= -0.5"), RAW),
        "positive spacing in .*-0.5",
    ),
    "nrrd: directions of length 0": (
        file("a.nrrd", NRRD.replace("(0.5,0,0)", "(0,0,0)"), RAW),
        "positive spacing in",
    ),
    "nrrd: directions of which one is empty": (
        file("a.nrrd", NRRD.replace("(0.5,0,0)", "()")),
        "do not have three numbers",
    ),
    "nrrd: sheared": (file("a.nrrd", NRRD.replace("(0.5,0,0)", "(0.5,0.2,0)"), RAW), "perpendicular axes in"),
    "nrrd: directions of two numbers": (file("a.nrrd", NRRD.replace("(0.5,0,0)", "(0.5,0)"), RAW), DAMAGED),
    **{
        f"mhd: header size of {size}": (
            detached(
                "a.mhd",
                data_file(META.replace("DimSize", f"HeaderSize = {size}\nDimSize"), "a.raw"),
                b"x" * 100 + RAW,
                "a.raw",
            ),
            f"'{size}' as HeaderSize; copy or convert|' as HeaderSize; copy",
        )
        for size in ("100.0", "1e2", "-2", "hundred", "")
    },
    **{
        f"nrrd: {field} of {number}": (
            file("a.nrrd", NRRD.replace("encoding", f"{field}: {number}\nencoding"), b"x" * 100 + RAW),
            f"damaged: its header has '{number}' as {field}",
        )
        for field, number in (
            ("byte skip", "100.0"),
            ("byte skip", "-2"),
            ("line skip", "1.0"),
            ("line skip", "-1"),
        )
    },
    "mhd: bytes in front of the voxels that it does not state": (
        detached("a.mhd", data_file(META, "a.raw"), b"header" * 10 + RAW, "a.raw"),
        "found 60 more, in front of them or behind; state in the header .*HeaderSize",
    ),
    "mhd: bytes in front of voxels that end in background": (
        detached("a.mhd", data_file(META, "a.raw"), b"header" * 10 + RAW[:-400] + bytes(400), "a.raw"),
        "found 60 more, in front of them or behind; state in the header .*HeaderSize",
    ),
    "nhdr: bytes in front of the voxels that it does not state": (
        detached("a.nhdr", data_file(NRRD, "a.raw"), b"header" * 10 + RAW, "a.raw"),
        "found 60 more, in front of them or behind; state in the header .*byte skip",
    ),
    "nrrd: dimension that sizes contradict": (
        file("a.nrrd", NRRD.replace("dimension: 3", "dimension: 4"), RAW),
        "dimension is 4, and sizes has 3 numbers",
    ),
    "nrrd: spacings that directions contradict": (
        file("a.nrrd", NRRD.replace("kinds", "spacings: 0.5 0.75 3\nkinds"), RAW),
        "same voxel sizes in spacings and space directions of .*0.75 x 3 and .* mm; mend",
    ),
    **{
        f"{kind}: text with {word}": (
            file(name, header, b" ".join([word.encode(), *[b"7"] * 1079])),
            f"damaged: it has '{word[:20]}'.*(int16 cannot hold|where numbers belong)",
        )
        for kind, name, header in (
            ("nrrd", "a.nrrd", NRRD.replace("raw", "ascii")),
            ("mha", "a.mha", META.replace("BinaryData = True", "BinaryData = False")),
        )
        for word in ("99999", "-32769", "nan", "inf", "0.9", "1e99", "1_0", "x" * 900)
    },
    "nrrd: text beyond float32": (
        file("a.nrrd", NRRD.replace("raw", "text").replace("short", "float"), b"1e39 " * 1080),
        "damaged: it has '1e39', which float32 cannot hold",
    ),
    "nrrd: text without end": (
        file("a.nrrd", NRRD.replace("raw", "text"), b"7 " * 1080 + b" " * 2_000_000),
        "1080 numbers in .* bytes of text; convert it again",
    ),
    "nrrd: text with too many numbers": (
        file("a.nrrd", NRRD.replace("raw", "text"), b"7 " * 150_000),
        "1080 numbers in .*found more; copy",
    ),
    "nrrd: words for numbers": (file("a.nrrd", NRRD.replace("(0.5,0,0)", "(x,y,z)"), RAW), DAMAGED),
    "nrrd: no byte order": (file("a.nrrd", without(NRRD, "endian"), RAW), DAMAGED),
    "nrrd: unknown type": (file("a.nrrd", NRRD.replace("short", "block"), RAW), UNREAD),
    "nrrd: unknown encoding": (file("a.nrrd", NRRD.replace("raw", "hex"), RAW), UNREAD),
    "mha: unknown type": (file("a.mha", META.replace("MET_SHORT", "MET_NUMBER"), RAW), DAMAGED),
    "mha: text as voxels": (file("a.mha", META.replace("MET_SHORT", "MET_STRING"), RAW), UNREAD),
    "mha: arrays as voxels": (file("a.mha", META.replace("MET_SHORT", "MET_USHORT_ARRAY"), RAW), UNREAD),
    "nrrd: no encoding of any kind": (file("a.nrrd", NRRD.replace("raw", "rar"), RAW), DAMAGED),
    "mha: another object": (file("a.mha", META.replace("= Image", "= Mesh"), RAW), DAMAGED),
    "mha: three values in each voxel": (
        file("a.mha", META.replace("DimSize", "ElementNumberOfChannels = 3\nDimSize"), RAW * 3),
        "3 values in each voxel",
    ),
    "mha: header without end": (file("a.mha", META.replace("ElementDataFile = LOCAL\n", "")), DAMAGED),
    "nrrd: header without end": (file("a.nrrd", NRRD.rstrip()), DAMAGED),
    "mha: a line without end": (file("a.mha", "Comment = " + "x" * 5_000_000 + "\n" + META, RAW), DAMAGED),
    "nrrd: a header of comments": (file("a.nrrd", NRRD[:9] + "# x\n" * 1_100_000 + NRRD[9:], RAW), DAMAGED),
    "nii: complex numbers": (nifti("a.nii", put(70, "<2h", 32, 64)), "2 values in each voxel"),
    "nii: unknown voxel type": (
        nifti("a.nii", put(70, "<2h", 999, 16)),
        "voxels are of type 999, which NIfTI lacks",
    ),
    # Paths that lead elsewhere, or to what is no file.
    "mhd: absolute path": (absolute("a.mhd", META), OUTSIDE),
    "nhdr: absolute path": (absolute("a.nhdr", NRRD), OUTSIDE),
    "mhd: /etc/passwd": (file("a.mhd", data_file(META, "/etc/passwd")), OUTSIDE),
    "mhd: /dev/zero": (file("a.mhd", data_file(META, "/dev/zero")), OUTSIDE),
    "nhdr: /dev/zero": (file("a.nhdr", data_file(NRRD, "/dev/zero")), OUTSIDE),
    "mhd: a path that climbs": (secret_beside(file("a.mhd", data_file(META, "../secret.raw"))), OUTSIDE),
    "nhdr: a path that climbs": (secret_beside(file("a.nhdr", data_file(NRRD, "../secret.raw"))), OUTSIDE),
    "mhd: a path that climbs inside": (
        secret_beside(file("a.mhd", data_file(META, "x/../../secret.raw"))),
        OUTSIDE,
    ),
    "mhd: a list that climbs": (
        secret_beside(file("a.mhd", data_file(META, "LIST") + SLICES.replace("s0", "../s0"))),
        OUTSIDE,
    ),
    "nhdr: a list that climbs": (
        secret_beside(file("a.nhdr", data_file(NRRD, "LIST") + SLICES.replace("s0", "../s0"))),
        OUTSIDE,
    ),
    "mhd: a pattern that climbs": (
        secret_beside(file("a.mhd", data_file(META, "../s%03d.raw 0 8 1"))),
        OUTSIDE,
    ),
    "nhdr: a pattern that climbs": (
        secret_beside(file("a.nhdr", data_file(NRRD, "../s%03d.raw 0 8 1"))),
        OUTSIDE,
    ),
    "mhd: a pattern of countless files": (file("a.mhd", data_file(META, "s%03d.raw 0 999999999 1")), DAMAGED),
    "mhd: a pattern of formats": (file("a.mhd", data_file(META, "s%99999999d.raw 0 8 1")), DAMAGED),
    "mhd: a link that leads out": (
        secret_beside(link_at("a.raw", "../secret.raw", file("a.mhd", data_file(META, "a.raw")))),
        OUTSIDE,
    ),
    "nhdr: a link that leads out": (
        secret_beside(link_at("a.raw", "../secret.raw", file("a.nhdr", data_file(NRRD, "a.raw")))),
        OUTSIDE,
    ),
    "mhd: a link to itself": (link_at("a.raw", "a.raw", file("a.mhd", data_file(META, "a.raw"))), OUTSIDE),
    "mhd: a pipe": (pipe_at("a.raw", file("a.mhd", data_file(META, "a.raw"))), OUTSIDE),
    "nhdr: a pipe": (pipe_at("a.raw", file("a.nhdr", data_file(NRRD, "a.raw"))), OUTSIDE),
    "mhd: a folder": (file("a.mhd", data_file(META, ".")), OUTSIDE),
    "mhd: no file": (file("a.mhd", data_file(META, "a.raw")), OUTSIDE),
    "nhdr: an empty list": (file("a.nhdr", data_file(NRRD, "LIST")), DAMAGED),
    "mhd: a name with NUL": (file("a.mhd", data_file(META, "a\0.raw")), OUTSIDE),
    "mhd: data that are its header": (file("a.mhd", data_file(META, "a.mhd")), TRUNCATED),
    "link to itself": (
        link_at("a.nii.gz", "a.nii.gz"),
        "an image at .*, found a link that leads back to itself",
    ),
    "link to nothing": (link_at("a.mha", "b.mha"), "found a link to b.mha, where there is none"),
    "pipe": (pipe_at("a.nii.gz"), "an image at .*, found a named pipe"),
    "pipe named mha": (pipe_at("a.mha"), "an image at .*, found a named pipe"),
    "device": (link_at("a.nrrd", "/dev/zero"), "an image at .*, found a device"),
    "empty mha": (file("a.mha"), DAMAGED),
    "empty nrrd": (file("a.nrrd"), DAMAGED),
    "empty nii.gz": (file("a.nii.gz"), DAMAGED),
    "text named nii.gz": (file("a.nii.gz", "hello " * 99), DAMAGED),
}
"""Makers of files that must be refused, and what the message says."""

assert len({re.sub(r"\W+", "", name) for name in (*SOUND, *REFUSED)}) == len(SOUND) + len(REFUSED)
