"""Odd inputs, made anew: each is read right, or refused in words that name file, cause and remedy.

`make bench-first-aid` gives the same inputs to the commands themselves, and watches time, memory and files.
"""

import json
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from odd_inputs.datasets import DATASET, REGIONS, dataset_trials, describe, labels, layered, sound
from odd_inputs.images import image_trials
from odd_inputs.messages import difference, has_remedy, plain
from odd_inputs.public import public_trials
from odd_inputs.reading import read_input, reading_difference
from odd_inputs.series import dicom_trials
from odd_inputs.trial import Accepted, Refused, Right, Trial

from autospine.cli import main
from autospine.core.errors import AutospineError

SPARE_BYTES = 4 << 30
"""Address space that a test may take; an input that is believed would take the machine's."""

IN_PREDICTION = ("values", "checks", "entries")
"""Kinds that only the command as a whole judges: by the model, or by case."""

BENCHMARK_ONLY = ("2 GB of gzip",)
"""Inputs that take seconds to make."""


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """Turn endless reading into a MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + SPARE_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def chosen(trials: list[Trial]) -> list[Trial]:
    return [t for t in trials if not t.name.startswith(BENCHMARK_ONLY)]


READ = [t for t in chosen([*image_trials(), *dicom_trials()]) if t.kind not in IN_PREDICTION]


def check_reading(trial: Trial, folder: Path) -> None:
    source = trial.make(folder)
    if isinstance(trial.expect, Right):
        assert reading_difference(source, trial.expect) is None
    elif isinstance(trial.expect, Refused):
        with pytest.raises((AutospineError, AssertionError)) as raised:
            read_input(source)
        check_message(trial, str(raised.value), folder)
    else:
        assert read_input(source)


def check_message(trial: Trial, said: str, folder: Path) -> None:
    assert isinstance(trial.expect, Refused)
    said = plain(said, folder)
    for word in trial.expect.says:
        assert re.search(word, said, re.IGNORECASE), said
    assert has_remedy(said), f"no remedy: {said}"
    assert difference(trial.name, said) is None


@pytest.mark.parametrize("trial", READ, ids=lambda t: t.name)
def test_an_image_is_read_right_or_refused(trial: Trial, tmp_path: Path):
    check_reading(trial, tmp_path)


@pytest.mark.real_data
@pytest.mark.parametrize("trial", list(public_trials()), ids=lambda t: t.name)
def test_a_public_odd_file_is_read_right_or_refused(trial: Trial, tmp_path: Path):
    check_reading(trial, tmp_path)


@pytest.mark.parametrize("trial", list(dataset_trials()), ids=lambda t: t.name)
def test_verify_takes_a_dataset_or_says_what_is_wrong(
    trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    workspace = trial.make(tmp_path)
    code = main(["verify", "-d", "7", "-w", str(workspace)])
    captured = capsys.readouterr()
    said = captured.out + captured.err + caplog.text
    if isinstance(trial.expect, Accepted):
        assert code == 0, said
        assert all(re.search(word, said, re.IGNORECASE) for word in trial.expect.says), said
    else:
        assert code == 1, said
        check_message(trial, said, tmp_path)
    assert "\x1b" not in said


def test_layers_of_segments_are_planned_stored_and_scored_as_one_label_map(tmp_path: Path):
    layers, maps = sound(tmp_path / "layers"), sound(tmp_path / "maps")
    layered(layers, {"spine": labels().clip(0, 1), "disc": labels() // 2}, **REGIONS)
    describe(maps, **REGIONS)
    records = []
    for dataset in (layers, maps):
        workspace = dataset.parent.parent
        assert main(["plan-and-preprocess", "-d", "7", "-w", str(workspace)]) == 0
        stored = workspace / "preprocessed" / DATASET.name
        record = json.loads((stored / "fullres" / "anna.json").read_text())
        records.append(record["label_voxels"])
    assert records[0] == records[1]
    assert main(["evaluate", str(maps / "labelsTr"), str(layers / "labelsTr"), "-o", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "evaluation.json").read_text())["mean_dice"] == 1
