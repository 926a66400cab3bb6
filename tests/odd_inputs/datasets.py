"""Raw datasets as people make them, each with one thing odd, for `autospine verify`."""

import json
import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from odd_inputs.images import nifti, nrrd
from odd_inputs.trial import Accepted, Outcome, Refused, Trial
from odd_inputs.volumes import PACKERS, SHAPE, affine, nrrd_header, voxels, write_nrrd

DATASET = Path("raw") / "Dataset007_Odd"
DESCRIPTION: dict[str, Any] = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "vertebra": 1, "disc": 2},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
NAMES = ("anna", "bert")

Change = Callable[[Path], object]
"""Changes a sound dataset, given its folder."""


def dataset_trials() -> Iterator[Trial]:
    yield from _descriptions()
    yield from _tables()
    yield from _labels()
    yield from _layers()
    yield from _names()
    yield from _grids()
    yield from _images()
    yield from _terminal()
    yield from _special_files()


def labels() -> np.ndarray:
    """Bone (1) and a disc (2) where `voxels` has them."""
    made = np.zeros(SHAPE, np.uint8)
    made[5:, 6:10, 7:] = 1
    made[8:10, 6:10, 7:] = 2
    return made


def sound(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    """Write a sound dataset of two cases into a workspace; return the dataset's folder."""
    dataset = folder / DATASET
    for part in ("imagesTr", "labelsTr"):
        (dataset / part).mkdir(parents=True)
    for name in names:
        nifti(name=f"{name}_0000.nii.gz")(dataset / "imagesTr")
        nifti(name=f"{name}.nii.gz", array=labels())(dataset / "labelsTr")
    describe(dataset)
    return dataset


def describe(dataset: Path, encoding: str = "utf-8", /, **changes: Any) -> None:
    (dataset / "dataset.json").write_text(json.dumps(DESCRIPTION | changes), encoding=encoding)


def trial(kind: str, name: str, change: Change, expect: Outcome, hostile: bool = False) -> Trial:
    def make(folder: Path) -> Path:
        change(sound(folder))
        return folder

    return Trial(
        kind=kind, name=f"dataset: {name}", make=make, expect=expect, command="verify", hostile=hostile
    )


def _descriptions() -> Iterator[Trial]:
    def text(content: str | bytes) -> Change:
        def change(dataset: Path) -> None:
            raw = content if isinstance(content, bytes) else content.encode()
            (dataset / "dataset.json").write_bytes(raw)

        return change

    yield trial("messages", "sound", lambda d: None, Accepted())
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"):
        marked = encoding if encoding in ("utf-8-sig", "utf-16") else None
        expect = Accepted() if marked else Refused(says=("dataset.json", "UTF-16"))
        yield trial("messages", f"dataset.json in {encoding}", lambda d, e=encoding: describe(d, e), expect)
    yield trial("messages", "dataset.json is empty", text(""), Refused(says=("dataset.json",)))
    yield trial("messages", "dataset.json is a list", text("[]"), Refused(says=("dataset.json",)))
    yield trial("messages", "dataset.json is null", text("null"), Refused(says=("dataset.json",)))
    yield trial("messages", "dataset.json is cut", text('{"labels": {"back'), Refused(says=("dataset.json",)))
    yield trial(
        "messages",
        "dataset.json is bytes",
        text(bytes(range(1, 256))),
        Refused(says=("dataset.json", "UTF-8")),
    )
    deep = "[" * 100_000 + "]" * 100_000
    yield trial("internal", "dataset.json is nested deeply", text(deep), Refused(says=("dataset.json",)))
    deep_label = json.dumps(DESCRIPTION).replace('"vertebra": 1', '"vertebra": ' + "[" * 5000 + "]" * 5000)
    yield trial("internal", "a label is nested deeply", text(deep_label), Refused(says=("dataset.json",)))
    yield trial(
        "internal",
        "a label is 1e400",
        text(json.dumps(DESCRIPTION).replace(": 2", ": 1e400", 1)),
        Refused(says=("dataset.json",)),
    )
    yield trial(
        "internal",
        "a label of many digits",
        text(json.dumps(DESCRIPTION).replace('"disc": 2', '"disc": ' + "9" * 5000)),
        Refused(says=("dataset.json",)),
    )

    def with_labels(**labels: object) -> Change:
        return lambda d: describe(d, labels=labels)

    yield trial(
        "messages", "Background in capitals", with_labels(Background=0, vertebra=1, disc=2), Accepted()
    )
    yield trial(
        "messages", "BACKGROUND in capitals", with_labels(BACKGROUND=0, vertebra=1, disc=2), Accepted()
    )
    yield trial("messages", "no background", with_labels(vertebra=1, disc=2), Accepted())
    yield trial(
        "messages",
        "ignore in the middle",
        with_labels(background=0, ignore=1, disc=2),
        Accepted(),
    )
    yield trial(
        "messages", "labels as texts", with_labels(background="0", vertebra="1"), Refused(says=("labels",))
    )
    yield trial(
        "messages",
        "labels the wrong way round",
        lambda d: describe(d, labels={"0": "background", "1": "vertebra"}),
        Refused(says=("labels",)),
    )
    yield trial(
        "messages",
        "the same integer twice",
        with_labels(background=0, vertebra=1, disc=1),
        Refused(says=("1",)),
    )
    yield trial(
        "messages", "a gap in the labels", with_labels(background=0, vertebra=1, disc=5), Refused(says=("2",))
    )
    yield trial(
        "messages", "an ending without its dot", lambda d: describe(d, file_ending="nii.gz"), Accepted()
    )
    yield trial(
        "messages",
        "an ending of capitals",
        lambda d: describe(d, file_ending=".NII.GZ"),
        Refused(says=("ending",)),
    )
    yield trial(
        "messages",
        "an ending that is none",
        lambda d: describe(d, file_ending=".png"),
        Refused(says=(".png",)),
    )
    yield trial(
        "messages", "no ending", lambda d: describe(d, file_ending=None), Refused(says=("file_ending",))
    )
    yield trial(
        "messages",
        "channels as a list",
        lambda d: describe(d, channel_names=["CT"]),
        Refused(says=("channel_names",)),
    )

    def first_version(dataset: Path) -> None:
        dataset.rename(dataset.parent / "Task007_Odd")

    elsewhere = {name: {"images": [f"/data/{name}.nii.gz"], "label": "/data/l.nii.gz"} for name in NAMES}
    yield trial(
        "passed over",
        "dataset.json names files elsewhere",
        lambda d: describe(d, dataset=elsewhere),
        Refused(says=("anna, bert", "imagesTr")),
    )
    yield trial(
        "passed over",
        "dataset.json counts more cases",
        lambda d: describe(d, numTraining=200),
        Accepted(says=("200", "2 cases")),
    )
    yield trial(
        "messages",
        "a label given twice",
        text(json.dumps(DESCRIPTION).replace('"disc": 2', '"disc": 2, "disc": 3')),
        Refused(says=("disc", "2 times")),
    )
    yield trial("messages", "nnU-Net v1", first_version, Refused(says=("Task007_Odd", "nnU-Net v1|convert")))


def _tables() -> Iterator[Trial]:
    def table(content: str, encoding: str = "utf-8") -> Change:
        return lambda d: (d / "cases.csv").write_text(content, encoding=encoding)

    rows = "case,modality\nanna,CT\nbert,CT\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        yield trial("messages", f"cases.csv in {encoding}", table(rows, encoding), Accepted())
    yield trial("messages", "cases.csv with empty rows", table(rows + ",\n\n,\n"), Accepted())
    yield trial("messages", "cases.csv with semicolons", table(rows.replace(",", ";")), Accepted())
    yield trial(
        "messages", "cases.csv of an unknown case", table(rows + "carl,CT\n"), Refused(says=("carl",))
    )
    yield trial(
        "messages", "cases.csv of an unknown modality", table(rows.replace("CT", "XR")), Refused(says=("XR",))
    )
    yield trial("messages", "cases.csv with a case twice", table(rows + "anna,MR\n"), Refused(says=("anna",)))
    yield trial("messages", "cases.csv without cases", table("modality\nCT\n"), Refused(says=("case",)))
    yield trial(
        "messages",
        "cases.csv is bytes",
        lambda d: (d / "cases.csv").write_bytes(bytes(range(128, 256)) * 9),
        Refused(says=("cases.csv",)),
    )
    tabs = rows.replace(",", "\t")
    for name, content, encoding in (
        ("cases.csv as Unicode text of a spreadsheet", tabs, "utf-16"),
        ("cases.csv that states its separator", "sep=;\n" + rows.replace(",", ";"), "utf-8"),
        ("cases.csv with columns in capitals", rows.replace("case,modality", "Case , MODALITY"), "utf-8"),
        ("cases.csv with words for nothing", "case,modality,site\nanna,n/a,NA\nbert,-,nan\n", "utf-8"),
    ):
        yield trial("messages", name, table(content, encoding), Accepted())
    for name, content, says in (
        ("cases.csv of names of files", rows.replace("anna", "anna_0000.nii.gz"), ("anna alone",)),
        ("cases.csv of names in capitals", rows.replace("anna", "ANNA"), ("write anna",)),
        ("cases.csv with a row in quotes", rows.replace("anna,CT", '"anna,CT"'), ("row 1", "quotes")),
        ("cases.csv with too many cells", rows.replace("anna,CT", "anna,CT,x"), ("row 1", "columns")),
        ("cases.csv with an open quote", rows.replace("anna", '"anna'), ("cases.csv", "line")),
        ("a workbook as cases.csv", "PK\x03\x04" + "\0" * 99, ("workbook", "save it as CSV")),
    ):
        yield trial("messages", name, table(content), Refused(says=says))
    for name in ("Cases.CSV", "cases.csv.csv", "cases.csv.txt", "cases.xlsx", "cases.tsv", "cases.txt"):
        yield trial(
            "passed over",
            f"the table is called {name}",
            lambda d, n=name: (d / n).write_text(rows),
            Refused(says=(re.escape(name), r"save it as cases\.csv")),
        )


def _labels() -> Iterator[Trial]:
    def mapped(array: np.ndarray) -> Change:
        return lambda d: nifti(name="anna.nii.gz", array=array)(d / "labelsTr")

    whole = labels().astype(np.float32)
    yield trial(
        "messages", "labels within 1 % of whole numbers", mapped(whole * 0.996), Accepted(says=("round",))
    )
    yield trial("messages", "labels of fractions", mapped(whole * 0.7), Refused(says=("anna", r"0\.7")))
    yield trial(
        "messages",
        "labels that are probabilities",
        mapped(np.linspace(0, 1, whole.size, dtype=np.float32).reshape(SHAPE)),
        Refused(says=("anna",)),
    )
    yield trial("messages", "unknown labels", mapped(labels() * 3), Refused(says=("anna", "3|6")))
    yield trial(
        "messages", "negative labels", mapped(-labels().astype(np.int16)), Refused(says=("anna", "-1|-2"))
    )
    yield trial("messages", "labels of 32 bits", mapped(labels().astype(np.uint32)), Accepted())
    nan = whole.copy()
    nan[0, 0, 0] = np.nan
    yield trial("messages", "labels with NaN", mapped(nan), Refused(says=("anna", "NaN|finite")))
    yield trial("messages", "a label map of colours", _colours, Refused(says=("anna",)))
    for name, segments, expect in (
        ("in other integers", {"vertebra": 4, "disc": 9}, Accepted()),
        ("in the same integers", {"vertebra": 1, "disc": 2}, Accepted()),
        ("exchanged", {"disc": 1, "vertebra": 2}, Accepted()),
        ("that dataset.json lacks", {"vertebra": 1, "rib": 2}, Refused(says=("rib",))),
    ):
        yield trial("segments", f"segments {name}", lambda d, s=segments: segmented(d, s), expect)


def _colours(dataset: Path) -> None:
    stored = np.zeros((*SHAPE[::-1],), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), dataset / "labelsTr" / "anna.nii.gz")


def segmented(dataset: Path, segments: Mapping[str, int]) -> None:
    """Make it a dataset of NRRD images with segmentations of 3D Slicer, whose names have these integers."""
    for part in ("imagesTr", "labelsTr"):
        shutil.rmtree(dataset / part)
        (dataset / part).mkdir()
    own = {"vertebra": 1, "disc": 2}
    by_place = list(segments.items())
    for name in NAMES:
        nrrd(name=f"{name}_0000.nrrd")(dataset / "imagesTr")
        stored = np.zeros(SHAPE, np.uint8)
        for index, (segment, integer) in enumerate(by_place):
            stored[labels() == own.get(segment, index + 1)] = integer
        more = {}
        for index, (segment, integer) in enumerate(by_place):
            more |= {
                f"Segment{index}_ID": f"Segment_{index + 1}",
                f"Segment{index}_Name": segment,
                f"Segment{index}_LabelValue": str(integer),
                f"Segment{index}_Layer": "0",
            }
        header = nrrd_header("uint8", encoding="gzip")
        write_nrrd(dataset / "labelsTr" / f"{name}.seg.nrrd", header, PACKERS["gzip"](stored.tobytes()), more)
    describe(dataset, file_ending=".nrrd")


REGIONS: dict[str, Any] = {
    "labels": {"background": 0, "spine": [1, 2], "disc": [2]},
    "regions_class_order": [1, 2],
}


def _layers() -> Iterator[Trial]:
    """Segmentations whose segments overlap, or could: each in a layer of its own."""
    spine, disc, vertebra = (made.astype(np.uint8) for made in (labels() > 0, labels() == 2, labels() == 1))
    nested, apart = {"spine": spine, "disc": disc}, {"vertebra": vertebra, "disc": disc}
    joined = rf"'spine' with 'disc' is 2 \({disc.sum()} voxels\)"
    plain = {"labels": {"background": 0, "spine": 1, "disc": 2}}
    no_integer = {"labels": {"background": 0, "spine": [1], "disc": [2]}, "regions_class_order": [1, 2]}

    def layers(name: str, change: Change, expect: Outcome) -> Trial:
        return trial("segments", f"layers {name}", change, expect)

    yield layers("of regions", lambda d: layered(d, nested, **REGIONS), Accepted(says=("anna", joined)))
    yield layers(
        "of regions, as text",
        lambda d: layered(d, nested, encoding="ascii", **REGIONS),
        Accepted(says=("bert", joined)),
    )
    yield layers(
        "of regions, from an old 3D Slicer",
        lambda d: layered(d, nested, keys=("Name",), **REGIONS),
        Accepted(says=(joined,)),
    )
    yield layers(
        "that no integer stands for",
        lambda d: layered(d, nested, **no_integer),
        Refused(
            says=("anna", rf"'spine' with 'disc' \({disc.sum()} voxels\)", "such as 3 to 'spine' and 'disc'")
        ),
    )
    yield layers(
        "of a disc outside of the spine",
        lambda d: layered(d, {"spine": vertebra, "disc": disc}, **REGIONS),
        Refused(says=("anna", rf"'disc' alone \({disc.sum()} voxels\)", "such as 3 to 'disc'")),
    )
    yield layers(
        "of plain labels that overlap",
        lambda d: layered(d, nested, **plain),
        Refused(
            says=("anna", rf"'spine' with 'disc' \({disc.sum()} voxels\)", "remove the overlap", "regions")
        ),
    )
    yield layers(
        "of plain labels that do not overlap",
        lambda d: layered(d, apart),
        Accepted(says=(rf"'vertebra' is 1 \({vertebra.sum()} voxels\)", rf"'disc' is 2 \({disc.sum()} ")),
    )
    yield layers(
        "with a name that dataset.json lacks",
        lambda d: layered(d, {"vertebra": vertebra, "rib": disc}),
        Refused(says=("anna", "'rib'", "rename")),
    )
    yield layers(
        "without names",
        lambda d: layered(d, {"Segment_1": vertebra, "Segment_2": disc}),
        Refused(says=("anna", "'Segment_2'", "rename")),
    )
    yield layers(
        "without segments",
        lambda d: layered(d, apart, keys=()),
        Refused(says=("anna", "segment", r"layer 0 \(", "save")),
    )
    along_last = {"space directions": "(1.5,0,0) (0,1.25,0) (0,0,2) none", "sizes": "16 12 14 2"}
    yield layers(
        "along the last axis",
        lambda d: layered(d, apart, fields=along_last),
        Refused(says=("anna", "first axis")),
    )
    for name, count in (("1000", 1000), ("a billion", 10**9), ("0", 0), ("-2", -2)):
        yield trial(
            "sizes",
            f"{name} layers",
            lambda d, n=count: layered(d, apart, fields={"sizes": f"{n} 16 12 14"}),
            Refused(says=("anna", f"found {count}")),
        )
    yield trial(
        "damaged",
        "layers that are cut",
        lambda d: layered(d, nested, cut=40, **REGIONS),
        Refused(says=("anna.seg.nrrd", "copy")),
    )


def layered(
    dataset: Path,
    segments: Mapping[str, np.ndarray],
    *,
    encoding: str = "gzip",
    keys: Collection[str] = ("ID", "Name", "LabelValue", "Layer"),
    fields: Mapping[str, str] | None = None,
    cut: int = 0,
    **described: Any,
) -> None:
    """Make it a dataset with segmentations of 3D Slicer whose segments have a layer each."""
    shutil.rmtree(dataset / "labelsTr")
    (dataset / "labelsTr").mkdir()
    more = {"Segmentation_SourceRepresentation": "Binary labelmap"}
    for layer, name in enumerate(segments):
        stated = {"ID": f"Segment_{layer + 1}", "Name": name, "LabelValue": "1", "Layer": str(layer)}
        more |= {f"Segment{layer}_{key}": value for key, value in stated.items() if key in keys}
    k, j, i = SHAPE
    header = nrrd_header(
        "uint8",
        encoding=encoding,
        dimension="4",
        sizes=f"{len(segments)} {i} {j} {k}",
        kinds="list domain domain domain",
    )
    header["space directions"] = f"none {header['space directions']}"
    stacked = np.stack(list(segments.values()), axis=-1)
    data = (
        " ".join(map(str, stacked.ravel())).encode()
        if encoding == "ascii"
        else PACKERS[encoding](stacked.tobytes())
    )
    for name in NAMES:
        write_nrrd(
            dataset / "labelsTr" / f"{name}.seg.nrrd",
            header | dict(fields or {}),
            data[: len(data) - cut],
            more,
        )
    describe(dataset, **described)


def _names() -> Iterator[Trial]:
    def accented(image: str, label: str, table: str | None = None) -> Change:
        def change(dataset: Path) -> None:
            word = "köhler"
            (dataset / "imagesTr" / "anna_0000.nii.gz").rename(
                dataset / "imagesTr" / f"{unicodedata.normalize(image, word)}_0000.nii.gz"
            )
            (dataset / "labelsTr" / "anna.nii.gz").rename(
                dataset / "labelsTr" / f"{unicodedata.normalize(label, word)}.nii.gz"
            )
            if table:
                name = unicodedata.normalize(table, word)
                (dataset / "cases.csv").write_text(f"case,modality\n{name},CT\n", encoding="utf-8")

        return change

    for image, label, table in (
        ("NFC", "NFD", None),
        ("NFD", "NFC", "NFC"),
        ("NFC", "NFC", "NFD"),
        ("NFD", "NFD", "NFC"),
    ):
        yield trial(
            "names",
            f"image {image}, labels {label}, table {table}",
            accented(image, label, table),
            Accepted(),
        )

    def lacking(dataset: Path) -> None:
        (dataset / "labelsTr" / "anna.nii.gz").unlink()

    yield trial("names", "a label map that is not there", lacking, Refused(says=("anna",)))
    yield trial(
        "names",
        "an image without its channel",
        lambda d: (d / "imagesTr" / "anna_0000.nii.gz").rename(d / "imagesTr" / "anna.nii.gz"),
        Refused(says=("anna", "0000")),
    )


def _grids() -> Iterator[Trial]:
    def moved(change: Callable[[np.ndarray], np.ndarray]) -> Change:
        def apply(dataset: Path) -> None:
            matrix = change(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine())
            nibabel.save(
                nibabel.Nifti1Image(labels().transpose(2, 1, 0), matrix), dataset / "labelsTr" / "anna.nii.gz"
            )

        return apply

    def shifted(mm: float) -> Callable[[np.ndarray], np.ndarray]:
        def change(matrix: np.ndarray) -> np.ndarray:
            matrix[0, 3] += mm
            return matrix

        return change

    yield trial("grids", "labels moved by 0.005 mm", moved(shifted(0.005)), Accepted())
    yield trial(
        "grids",
        "an affine off by 1e-4",
        moved(lambda m: m + 1e-4 * np.eye(4)[:, [1, 0, 2, 3]] * [[1], [1], [0], [0]]),
        Accepted(),
    )
    yield trial("grids", "labels moved by half a voxel", moved(shifted(0.75)), Refused(says=("anna", "mm")))

    def turned(dataset: Path) -> None:
        """The same voxels in another order: the grid is the same in space."""
        path = dataset / "labelsTr" / "anna.nii.gz"
        image: Any = nibabel.load(path)
        again = nibabel.as_closest_canonical(image).slicer[:, :, :]
        flipped = nibabel.Nifti1Image(
            np.asanyarray(again.dataobj)[:, ::-1],
            again.affine @ np.array([[1, 0, 0, 0], [0, -1, 0, SHAPE[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
        )
        nibabel.save(flipped, path)

    yield trial("grids", "labels in another order of axes", turned, Accepted())


def _images() -> Iterator[Trial]:
    def image(array: np.ndarray) -> Change:
        return lambda d: nifti(name="anna_0000.nii.gz", array=array)(d / "imagesTr")

    hu = voxels().astype(np.float32)
    share = (hu - hu.min()) / float(np.ptp(hu))
    spiked = share.copy()
    spiked[3, 4, 5:8] = 3000
    noted = Accepted(says=("anna",))
    for name, array in (
        ("in [0, 1]", share),
        ("in [-1, 1]", 2 * share - 1),
        ("as attenuation", ((hu + 1024) / 1000 * 0.02).astype(np.float32)),
        ("in [0, 1] but for three voxels", spiked),
    ):
        yield trial("values", f"CT {name}", image(array), Accepted(says=("anna", "HU")))
    yield trial("checks", "an image of zeros", image(np.zeros(SHAPE, np.int16)), Refused(says=("anna",)))
    yield trial("checks", "a label map as image", image(labels()), Refused(says=("anna",)))
    yield trial("values", "CT with water at 1024", image((hu + 1024).clip(0).astype(np.int16)), noted)


def _terminal() -> Iterator[Trial]:
    evil = "\x1b[31mred\x1b]0;title\x07"
    yield trial(
        "terminal",
        "a label with escapes",
        lambda d: describe(d, labels={"background": 0, evil: 1, "disc": 2}),
        Accepted(),
    )
    yield trial(
        "terminal",
        "an unknown case with escapes",
        lambda d: (d / "cases.csv").write_text(f"case,site\nanna{evil},x\n"),
        Refused(says=("cases.csv|anna",)),
    )
    yield trial(
        "terminal",
        "a modality with escapes",
        lambda d: (d / "cases.csv").write_text(f"case,modality\nanna,{evil}\n"),
        Refused(says=("anna",)),
    )
    yield trial(
        "terminal",
        "a channel with escapes",
        lambda d: describe(d, channel_names={"0": evil, "2": "x"}),
        Refused(says=("channel_names",)),
    )
    yield trial(
        "terminal",
        "a file name with escapes",
        lambda d: (d / "labelsTr" / "anna.nii.gz").rename(d / "labelsTr" / f"{evil}.nii.gz"),
        Refused(says=("anna",)),
    )
    yield trial(
        "terminal",
        "right-to-left marks",
        lambda d: describe(d, file_ending="\u202e.gz"),
        Refused(says=("ending",)),
    )


def _special_files() -> Iterator[Trial]:
    def replaced(name: str, make: Callable[[Path], object]) -> Change:
        def change(dataset: Path) -> None:
            path = dataset / name
            path.unlink(missing_ok=True)
            make(path)

        return change

    def fifo(path: Path) -> None:
        os.mkfifo(path)

    for name in ("dataset.json", "cases.csv", "imagesTr/anna_0000.nii.gz", "labelsTr/anna.nii.gz"):
        word = Path(name).name
        yield trial(
            "entries",
            f"a FIFO as {word}",
            replaced(name, fifo),
            Refused(says=(word.split("_")[0].split(".")[0],)),
            hostile=True,
        )
        yield trial(
            "entries",
            f"a link to a device as {word}",
            replaced(name, lambda p: p.symlink_to("/dev/zero")),
            Refused(says=(word.split("_")[0].split(".")[0],)),
            hostile=True,
        )
        yield trial(
            "entries",
            f"a link to itself as {word}",
            replaced(name, lambda p: p.symlink_to(p.name)),
            Refused(says=(word.split("_")[0].split(".")[0],)),
        )
        yield trial(
            "entries",
            f"a folder as {word}",
            replaced(name, lambda p: p.mkdir()),
            Refused(says=(word.split("_")[0].split(".")[0],)),
        )
