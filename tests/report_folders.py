"""Small folders of predictions and scores that tests of the report share."""

import json
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import makers
import numpy as np

from autospine.cli import main
from autospine.core.labels import parse_labels
from autospine.dataset.raw import load_dataset
from autospine.evaluation.held_out import HeldOut, score_held_out
from autospine.io.images import write_array
from autospine.prediction.case_log import PredictedCase, add_to_record
from autospine.storage.serialization import write_json

SHAPE = (24, 20, 16)
SPACING = (3.0, 2.0, 2.0)
LABELS = {"background": 0, "L1": 20, "L2": 21, "canal": 61}
TABLE = "case,modality,site,subject\n"
CASES = ("good", "shifted", "exchanged", "empty")
"""Cases of the folder, each called after its prediction."""


HOSTILE = "<img src=x onerror=alert(1)> & 'q' </script>\u202eevil" + "long" * 30
HOSTILE_CASES = (HOSTILE.replace("/", "∕"), "=1+1", "a'b\"c", "نص عربي")
HOSTILE_LABELS = {"background": 0, HOSTILE: 20, "'\"><b>": 21, "{{ 7 * 7 }}": 61}
"""Names with HTML, script, quotes, formulas, text from right to left, and of 200 characters."""


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


def hostile_folder(folder: Path) -> Path:
    """Write such folders whose cases and labels have names that a page could take for its own code."""
    return dataset_folder(folder, labels=HOSTILE_LABELS, names=HOSTILE_CASES)


def raw_dataset(workspace: Path) -> Path:
    """Write the dataset as one to train on into a workspace."""
    dataset_folder(workspace)
    raw = workspace / "raw/Dataset001_Small"
    shutil.move(workspace / "Dataset001_Small", raw)
    shutil.rmtree(workspace / "out")
    for kind in ("images", "labels"):
        (raw / f"{kind}Ts").rename(raw / f"{kind}Tr")
    return raw


def validated_model(raw: Path, model: Path, *, kinds: Sequence[str] = CASES) -> Path:
    """Write the folder of a model whose only complete fold holds all cases of a dataset out.

    Args:
        raw: The dataset.
        model: The new folder.
        kinds: What was predicted of each case, by the names of `CASES`.
    """
    validation = model / "fold_0/validation"
    grid = makers.grid(SHAPE, SPACING)
    for case, kind in zip(CASES, kinds, strict=True):
        write_array(validation / f"{case}.nii.gz", prediction(kind), grid)
    write_json(model / "plan.json", makers.plan())
    shutil.copy(raw / "dataset.json", model)
    log = json.dumps({"epoch": 1, "loss": 0.8, "warnings": {}}) + "\n"
    (model / "fold_0/metrics.jsonl").write_text(log, encoding="utf-8")
    (model / "fold_0/model.safetensors").touch()
    held_out = HeldOut(fold="0", cases=CASES, folder=validation)
    score_held_out(model, [held_out], load_dataset(raw), parse_labels(LABELS))
    return model


def experiment_folder(workspace: Path) -> Path:
    """Write a finished experiment of two designs, with its dataset, into a workspace."""
    raw = raw_dataset(workspace)
    folder = workspace / "results/Dataset001_Small/experiments/ablation"
    validated_model(raw, folder / "as_planned/seed_0")
    validated_model(raw, folder / "plain/seed_0", kinds=("good", "good", "good", "empty"))
    difference = {"metric": "dice", "class": None, "difference": 0.3, "low": 0.1, "high": 0.5}
    designs = {
        "as_planned": {"change": "the design as planned", "scores": {"dice": 0.4}, "parameters": 9},
        "plain": {
            "change": "no <b>attention</b> at all",
            "scores": {"dice": 0.7},
            "dice_by_class": {"L1": 0.7, "L2": None},
            "seconds_per_step": 0.5,
            "parameters": 1_000_000,
            "memory_bytes": 1_500_000_000,
            "differences_by_group": {"CT": {"difference": 0.4, "low": None, "high": None}},
            "differences": [{**difference, "p_corrected": 0.03, "subjects": 4}],
        },
    }
    content = {
        "format_version": 1,
        "question": "Does it earn its cost?",
        "verdict": ["What was removed does harm here."],
        "protocol": {
            "experiment": "ablation",
            "dataset": "Dataset001_Small",
            "configuration": "fast",
            "seeds": [0],
            "folds": ["0"],
            "steps": 20,
            "minutes": None,
        },
        "made": {"device": "CPU"},
        "designs": designs,
    }
    (folder / "experiment.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
