"""Small folders of predictions and scores that tests of the report share."""

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import makers
import numpy as np

from autospine.cli import main
from autospine.io.images import write_array
from autospine.prediction.case_log import PredictedCase, add_to_record

SHAPE = (24, 20, 16)
SPACING = (3.0, 2.0, 2.0)
LABELS = {"background": 0, "L1": 20, "L2": 21, "canal": 61}
TABLE = "case,modality,site,subject\n"
CASES = ("good", "shifted", "exchanged", "empty")
"""Cases of the folder, each called after its prediction."""


class Page(HTMLParser):
    """The tags, the text and the scripts of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.blocks: dict[str, str] = {}
        self._inside = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = (dict(attrs).get("id") or tag) if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.blocks[self._inside] = self.blocks.get(self._inside, "") + data
        else:
            self.text.append(data)

    def case(self, index: int) -> dict[str, Any]:
        return json.loads(self.blocks[f"case-{index}"])

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def reference() -> np.ndarray:
    """Two vertebrae with a canal behind them."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[3:10, 4:10, 4:12] = 21
    labels[12:19, 4:10, 4:12] = 20
    labels[2:20, 11:14, 6:10] = 61
    return labels


def prediction(case: str) -> np.ndarray:
    """What was predicted of a case."""
    labels = reference()
    if case == "shifted":
        labels = np.roll(labels, 2, axis=0)
    elif case == "exchanged":
        labels = np.where(labels == 20, 21, np.where(labels == 21, 20, labels)).astype(np.uint8)
    elif case == "empty":
        labels[:] = 0
    return labels


def dataset_folder(folder: Path, *, labels: dict[str, int] = LABELS, names: Sequence[str] = CASES) -> Path:
    """Write a dataset whose test cases have references, and the predictions of these beside it.

    Args:
        folder: A new folder for `Dataset001_Small` and `out`.
        labels: Names and label values of the four labels, in their order.
        names: Names of the cases, in the order of `CASES`.

    Returns:
        The folder of predictions.
    """
    data, out = folder / "Dataset001_Small", folder / "out"
    values = dict(zip(LABELS.values(), labels.values(), strict=True))
    grid = makers.grid(SHAPE, SPACING)
    for number, (name, kind) in enumerate(zip(names, CASES, strict=True)):
        true = reference()
        image = (
            np.where(true > 0, 400, -50).astype(np.int16) + np.arange(SHAPE[0], dtype=np.int16)[:, None, None]
        )
        write_array(data / f"imagesTs/{name}_0000.nii.gz", image, grid)
        write_array(data / f"labelsTs/{name}.nii.gz", true, grid)
        write_array(out / f"{name}.nii.gz", prediction(kind), grid)
        entry = PredictedCase(
            case=name,
            status="written",
            images=(str(data / f"imagesTs/{name}_0000.nii.gz"),),
            modality="CT",
            shape=SHAPE,
            spacing_mm=SPACING,
            seconds=1.5 + number,
            peak_gb=0.5,
            versions={"autospine": "0.1.0"},
        )
        add_to_record(out, [entry])
    assert set(values) == set(LABELS.values())
    described = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 0, "file_ending": ".nii.gz"}
    (data / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    rows = [f"{name},{'CT' if i % 2 else 'MR'},site {i % 2},\n" for i, name in enumerate(names)]
    if not any("," in name or '"' in name for name in names):
        (data / "cases.csv").write_text(TABLE + "".join(rows), encoding="utf-8")
    return out


def evaluated_folder(folder: Path, *options: str) -> Path:
    """Write such folders, and evaluate the predictions."""
    out = dataset_folder(folder)
    assert main(["evaluate", str(out), str(folder / "Dataset001_Small/labelsTs"), *options]) == 0
    return out
