"""The commands of the pages, run as a reader types them: each page in the order of its blocks.

One workspace serves all pages. Words are exchanged where a page's dataset has another name, and training and
planning get options that make them short.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from page_commands import commands_of

from autospine.cli import main
from autospine.io.images import read_labels, write_array
from autospine.storage.trained_models import STARTER_FILE
from autospine.vertebrae.schemes import find_scheme

pytestmark = pytest.mark.skipif(not STARTER_FILE.is_file(), reason="no starter")

DATASET = "Dataset900_Phantom"
SHORT = {
    "plan-and-preprocess": ("--patch", "32", "32", "32", "--feature-size", "8", "--memory", "2GB"),
    "train": ("--epochs", "1", "--iterations", "2"),
}
"""Options that are added, so that a page takes seconds."""

LONG = {"--max-minutes", "60"}
"""Words of the pages that are left out, as they contradict these."""


def run_page(page: str, *, wanted: Callable[[list[str]], bool] = lambda words: True) -> int:
    """Run the commands of a page in the current folder, and return how many there were."""
    count = 0
    for words in commands_of(page):
        words = [word.replace("Dataset001_Name", DATASET) for word in words]
        if not wanted(words) or words == ["--version"]:
            continue
        more = SHORT.get(words[0], ())
        if more:
            words = [word for word in words if word not in LONG]
        assert main([*words, *more]) == 0, f"{page}: autospine {' '.join(words)}"
        count += 1
    return count


def images(folder: Path) -> list[Path]:
    return sorted((folder / "raw" / DATASET / "imagesTs").glob("*.nii.gz"))


def getting_started_ends_with_scores_and_a_report(folder: Path) -> None:
    scores = json.loads((folder / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert len(scores["cases"]) == 2
    assert (folder / "out" / "report.html").is_file()


def predictions_in_all_formats(folder: Path) -> None:
    (folder / "in").mkdir()
    shutil.copy(images(folder)[0], folder / "in" / "a_0000.nii.gz")
    shutil.copytree(folder / "out", folder / "kept")
    assert run_page("docs/how-to/predict.md", wanted=lambda words: words[0] == "predict") >= 5
    written = {path.name for path in (folder / "out").iterdir()}
    assert {"a.nii.gz", "a.seg.nrrd", "a_probabilities.b2nd", "report.html"} <= written
    assert "a_preview.png" not in written  # it was of an earlier label map


def scores_of_two_models(folder: Path) -> None:
    for name in ("out", "out_a", "out_b"):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(folder / "kept", folder / name)
    assert run_page("docs/how-to/evaluate.md") == 5
    assert (folder / "out_b" / "comparison.csv").is_file()
    header = (folder / "out" / "evaluation.csv").read_text(encoding="utf-8").splitlines()[0]
    assert {"hd95", "id_rate"} <= set(header.split(","))


def a_model_goes_into_an_archive_and_predicts_from_it(folder: Path) -> None:
    shutil.rmtree(folder / "out")
    assert run_page("docs/how-to/share-models.md", wanted=lambda words: "import" not in words[:2]) >= 3
    assert (folder / "spine.autospine").stat().st_size > 1000
    assert (folder / "out" / "a.nii.gz").is_file()


def reports_of_what_is_there(folder: Path) -> None:
    def is_there(words: list[str]) -> bool:
        return words[0] == "report" and words[1] != f"results/{DATASET}" and (folder / words[1]).is_dir()

    model = folder / "results" / DATASET / "fast"
    places = (folder / "out", model, folder / "preprocessed" / DATASET)
    for place in places:
        (place / "report.html").unlink(missing_ok=True)
    assert run_page("docs/how-to/report.md", wanted=is_there) == 4
    assert all((place / "report.html").is_file() for place in places)
    assert (folder / "out-report.html").is_file()


def names_measurements_and_other_schemes(folder: Path) -> None:
    """The maps of the first command are in the scheme of TotalSegmentator, the others the starter's."""
    (folder / "scans").mkdir()
    shutil.copy(images(folder)[0], folder / "scans" / "a_0000.nii.gz")
    assert main(["predict", "-m", "starter", "-i", "scans", "-o", "seen"]) == 0
    seen = read_labels(folder / "seen" / "a.nii.gz")
    values = np.where(seen.array[0] == 1, find_scheme("totalsegmentator").integers["L3"], 0).astype(np.uint8)
    write_array(folder / "maps" / "a.nii.gz", values, seen.grid)
    assert run_page("docs/how-to/convert-labels.md", wanted=lambda words: words[0] == "convert") == 1
    named = iter(commands_of("docs/how-to/name-vertebrae.md"))
    assert main(next(named)) == 0
    for words in named:
        if "--count-with" not in words:
            assert main(words) == 0, words
    assert (folder / "named" / "a_vertebrae.json").is_file()
    assert run_page("docs/concepts/measurements.md") == 1
    assert (folder / "measured" / "report.html").is_file()


def where_the_network_looks(folder: Path) -> None:
    shutil.copy(images(folder)[0], folder / "scan.nii.gz")
    shutil.copy(sorted((folder / "raw" / DATASET / "labelsTs").glob("*.nii.gz"))[0], folder / "labels.nii.gz")
    assert run_page("docs/how-to/attention.md", wanted=lambda words: words[0] == "attention") == 1
    assert any((folder / "attention").iterdir())


def test_the_commands_of_the_pages_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_page("docs/get-started.md") == 5
    getting_started_ends_with_scores_and_a_report(tmp_path)
    predictions_in_all_formats(tmp_path)
    scores_of_two_models(tmp_path)
    a_model_goes_into_an_archive_and_predicts_from_it(tmp_path)
    reports_of_what_is_there(tmp_path)
    names_measurements_and_other_schemes(tmp_path)
    where_the_network_looks(tmp_path)
