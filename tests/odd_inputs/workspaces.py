"""Workspaces of strangers: planned datasets and models whose files name
places outside, or sizes beyond reason.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from odd_inputs.trial import Accepted, Contained, Outcome, Refused, Trial

DATASET = "Dataset001_Phantom"
CONFIGURATION = "fast"
CASE = "lumbar_ct_000"
PREPARE = (
    ("phantom", "-o", f"raw/{DATASET}", "-n", "5", "--modality", "CT", "--labels", "structures"),
    ("plan-and-preprocess", "-d", "1", "--memory", "2GB", "--patch", "32", "32", "32", "--feature-size", "8"),
    ("train", "0", "--fold", "0", "--epochs", "1", "--iterations", "4"),
)
"""Commands that make the workspace that is changed."""

CLIMBING = (
    "../../victim",
    "../../../victim",
    "..",
    ".",
    "",
    "/tmp/autospine-victim",
    "a/../../../victim",
    "a/b",
    "a\\b",
    "..\\..\\victim",
    "a\x00b",
    "a\nb",
    "~/victim",
    ".hidden",
    "x" * 300,
)
"""Names that leave their folder, or are none."""

Change = Callable[[dict[str, Any]], object]
"""Changes the content of a JSON file."""

PREPROCESS = ("preprocess", "-d", "1")
TRAIN = ("train", "0", "--fold", "1", "--epochs", "1", "--max-minutes", "0.1")
GO_ON = ("train", "0", "--fold", "0", "--epochs", "1", "--max-minutes", "0.1")


def workspace_trials(template: Path) -> Iterator[Trial]:
    """Make trials of a workspace that `PREPARE` has made; each works on a copy."""
    yield from _plans(template)
    yield from _folds(template)
    yield from _stored_cases(template)
    yield from _results(template)
    yield from _numbers(template)
    yield from _options(template)
    yield from _leftovers(template)


def _trial(
    template: Path,
    name: str,
    file: str,
    change: Change | Callable[[Path], object],
    words: Sequence[str],
    expect: Outcome,
    kind: str = "paths",
    raw: bool = False,
) -> Trial:
    def make(folder: Path) -> Path:
        workspace = folder / "workspace"
        shutil.copytree(template, workspace, symlinks=True)
        victim = folder / "victim"
        victim.mkdir()
        (victim / "thesis.txt").write_text("years of work")
        path = workspace / file
        if raw:
            change(path)  # type: ignore[arg-type]
        else:
            content = json.loads(path.read_text())
            change(content)
            path.write_text(json.dumps(content))
        return workspace

    return Trial(
        kind=kind,
        name=name,
        make=make,
        expect=expect,
        command=words[0],
        words=tuple(words[1:]),
        hostile=kind == "paths",
    )


PLAN = f"preprocessed/{DATASET}/plan.json"
FOLDS = f"preprocessed/{DATASET}/folds.json"
MODEL = f"results/{DATASET}/{CONFIGURATION}"


def _plans(template: Path) -> Iterator[Trial]:
    for index, name in enumerate(CLIMBING):
        said = Refused(says=("plan.json|cases|configuration|name",))

        def cases(plan: dict[str, Any], name: str = name) -> None:
            plan["configurations"][0]["cases"] = name

        def called(plan: dict[str, Any], name: str = name) -> None:
            plan["configurations"][0]["name"] = name

        shown = repr(name[:20])
        yield _trial(
            template, f"plan.json: cases {shown}", PLAN, cases, PREPROCESS if index % 2 else TRAIN, said
        )
        yield _trial(
            template,
            f"plan.json: configuration {shown}",
            PLAN,
            called,
            TRAIN if index % 2 else PREPROCESS,
            said,
        )

    def elsewhere(plan: dict[str, Any]) -> None:
        plan["dataset"] = "../../../victim"

    yield _trial(
        template,
        "plan.json: dataset that climbs",
        PLAN,
        elsewhere,
        TRAIN,
        Refused(says=("plan.json|dataset",)),
    )


def _folds(template: Path) -> Iterator[Trial]:
    for name in ("../../victim/thesis.txt", "/etc/passwd", "..", "", "a\x00b"):

        def change(folds: dict[str, Any], name: str = name) -> None:
            folds["validation"][0] = [name]

        yield _trial(
            template, f"folds.json: case {name!r}", FOLDS, change, TRAIN, Refused(says=("folds.json",))
        )


def _stored_cases(template: Path) -> Iterator[Trial]:
    first = f"preprocessed/{DATASET}/{CONFIGURATION}/{CASE}.json"
    for name in ("../../../../victim/thesis", "/etc/passwd", ".."):

        def change(record: dict[str, Any], name: str = name) -> None:
            record["name"] = name

        # A case that is not its own is stored anew, or refused; nothing else is touched.
        yield _trial(template, f"stored case: name {name!r}", first, change, PREPROCESS, Contained())

    def outward(path: Path) -> None:
        victim = path.parents[4] / "victim" / "thesis.txt"
        for part in ("_image.b2nd", "_labels.b2nd", "_locations.npy"):
            target = path.with_name(path.stem + part)
            target.unlink()
            target.symlink_to(victim)
        record = json.loads(path.read_text())
        record["key"] = record["content"] = "0" * 32
        path.write_text(json.dumps(record))

    yield _trial(
        template, "stored case: links out of the workspace", first, outward, PREPROCESS, Contained(), raw=True
    )

    def linked_folder(path: Path) -> None:
        victim = path.parents[4] / "victim"
        shutil.rmtree(path.parent)
        path.parent.symlink_to(victim)

    yield _trial(
        template,
        "folder of stored cases is a link out of the workspace",
        first,
        linked_folder,
        PREPROCESS,
        Contained(),
        raw=True,
    )


def _results(template: Path) -> Iterator[Trial]:
    images = ("-i", f"raw/{DATASET}/imagesTr", "-o", "out")
    for name in ("../../victim", "/tmp/autospine-victim", "..", "a/b"):

        def called(plan: dict[str, Any], name: str = name) -> None:
            plan["configurations"][0]["name"] = name

        said = Refused(says=("plan.json|configuration|name",))
        yield _trial(
            template,
            f"model's plan: configuration {name!r}",
            f"{MODEL}/plan.json",
            called,
            ("predict", *images),
            said,
        )

    def best(name: str) -> Callable[[Path], object]:
        def change(path: Path) -> None:
            path.write_text(json.dumps({"format_version": 1, "members": [name], "dice": 0.9}))

        return change

    for name in ("../../../victim", "/etc", "", ".."):
        yield _trial(
            template,
            f"best.json: model {name!r}",
            f"results/{DATASET}/best.json",
            best(name),
            ("predict", *images),
            Refused(says=("best.json|model",)),
            raw=True,
        )


def _numbers(template: Path) -> Iterator[Trial]:
    def put(*keys: str | int, value: Any) -> Change:
        def change(plan: dict[str, Any]) -> None:
            inside: Any = plan["configurations"][0]
            for key in keys[:-1]:
                inside = inside[key]
            inside[keys[-1]] = value

        return change

    said = Refused(says=("plan.json|patch|batch|depth|stride|learning|epoch|spacing|size",))
    for kind, name, change in (
        ("sizes", "depths of two millions", put("network", "depths", value=[2_000_000, 2, 2, 2])),
        ("sizes", "a patch of 8192", put("patch_size", value=[8192, 8192, 8192])),
        ("sizes", "a batch of 1e9", put("training", "batch_size", value=10**9)),
        ("sizes", "a width of 1e9", put("network", "feature_size", value=10**9)),
        ("sizes", "windows of 1e6", put("network", "window_sizes", value=[[10**6] * 3] * 4)),
        ("sizes", "kernels of 1e6", put("network", "fusion", "kernels", value=[[10**6] * 3] * 3)),
        ("sizes", "1e12 epochs", put("training", "epochs", value=10**12)),
        ("sizes", "a spacing of 1e-6 mm", put("spacing_mm", value=[1e-6] * 3)),
        ("internal", "a patch of 0", put("patch_size", value=[0, 32, 32])),
        ("internal", "a negative patch", put("patch_size", value=[-32, 32, 32])),
        ("internal", "strides of 0", put("network", "strides", value=[[0, 0, 0]] * 5)),
        ("internal", "heads of 0", put("network", "num_heads", value=[0, 0, 0, 0])),
        ("internal", "a batch of 0", put("training", "batch_size", value=0)),
        ("internal", "a spacing of 0", put("spacing_mm", value=[0, 0, 0])),
        ("internal", "no windows", put("network", "window_sizes", value=[])),
        ("internal", "a mirror axis of 7", put("augmentation", "mirror_axes", value=[7])),
        ("internal", "a warm-up of 3", put("training", "warmup_fraction", value=3.0)),
    ):
        yield _trial(template, f"plan.json: {name}", PLAN, change, TRAIN, said, kind)

    def not_a_number(path: Path) -> None:
        content = json.loads(path.read_text())
        content["configurations"][0]["training"]["learning_rate"] = float("nan")
        path.write_text(json.dumps(content))

    yield _trial(
        template,
        "plan.json: a learning rate of NaN",
        PLAN,
        not_a_number,
        TRAIN,
        Refused(says=("learning_rate",)),
        "internal",
        raw=True,
    )

    def wrong_entries(path: Path) -> None:
        content = json.loads(path.read_text())
        content |= {f"wrong_{n}": n for n in range(1_000_000)}
        path.write_text(json.dumps(content))

    yield _trial(
        template,
        "plan.json: a million wrong entries",
        PLAN,
        wrong_entries,
        TRAIN,
        Refused(says=("plan.json",)),
        "sizes",
        raw=True,
    )
    for name, text in (
        ("empty", ""),
        ("a list", "[]"),
        ("null", "null"),
        ("nested deeply", "[" * 200_000),
        ("cut", '{"format_version": 1, '),
        ("bytes", "\x00\xff"),
    ):
        for file, words in (
            (PLAN, TRAIN),
            (FOLDS, TRAIN),
            (f"{MODEL}/plan.json", ("predict", "-i", f"raw/{DATASET}/imagesTr", "-o", "out")),
        ):
            yield _trial(
                template,
                f"{file.split('/')[0]} {Path(file).name}: {name}",
                file,
                lambda path, text=text: path.write_text(text),
                words,
                Refused(says=(Path(file).name,)),
                "internal",
                raw=True,
            )

    def device(path: Path) -> None:
        path.unlink()
        path.symlink_to("/dev/zero")

    def fifo(path: Path) -> None:
        path.unlink()
        os.mkfifo(path)

    for file, words in ((PLAN, TRAIN), (FOLDS, TRAIN)):
        said = Refused(says=(Path(file).name,))
        yield _trial(
            template, f"{Path(file).name} is a device", file, device, words, said, "entries", raw=True
        )
        yield _trial(template, f"{Path(file).name} is a FIFO", file, fifo, words, said, "entries", raw=True)


def _options(template: Path) -> Iterator[Trial]:
    """Options given twice: one value would be lost, and inputs are taken together."""
    images = ("-i", f"raw/{DATASET}/imagesTr", "-o", "out")
    for option, *words in (
        ("--output", "predict", *images, "-o", "elsewhere"),
        ("--format", "predict", *images, "--format", "mha", "--format", "nrrd"),
        ("--device", "predict", *images, "--device", "cpu", "--device", "cuda"),
        ("--fold", *TRAIN, "--fold", "2"),
        ("--epochs", *TRAIN, "--epochs", "3"),
        ("--dataset", *PREPROCESS, "-d", "2"),
    ):
        said = Refused(says=(option, "twice|once"))
        name = f"{words[0]} with {option} twice"
        yield _trial(template, name, PLAN, _nothing, words, said, "options", raw=True)
    cases = [f"raw/{DATASET}/imagesTr/lumbar_ct_00{index}_0000.nii.gz" for index in (1, 3)]
    words = ["predict", "-i", cases[0], "-i", cases[1], "-o", "out"]
    both = Accepted(says=("lumbar_ct_001", "lumbar_ct_003", "2 of 2 label maps"))
    yield _trial(template, "predict with -i twice", PLAN, _nothing, words, both, "options", raw=True)


def _nothing(_: Path) -> None:
    """Leave the workspace as it is."""


def _leftovers(template: Path) -> Iterator[Trial]:
    """What killed processes leave: it is never taken for whole, and harms nobody."""
    predict = ("predict", "-i", f"raw/{DATASET}/imagesTr", "-o", "out")
    expect = Accepted(says=(f"{CONFIGURATION}, fold 0", "5 of 5 label maps"))

    def half_imported(model: Path) -> None:
        shutil.copytree(model, model.parent / ".abcd1234.tmp")
        (model.parent / ".abcd1234.tmp" / "plan.json").unlink()

    def whole_but_not_renamed(model: Path) -> None:
        copy = model.parent / ".abcd1234.tmp"
        shutil.copytree(model, copy)
        os.utime(copy)

    def of_a_killed_prediction(model: Path) -> None:
        left = model.parents[2] / "out" / ".abcd1234.tmp"
        left.mkdir(parents=True)
        (left / "part.b2nd").write_bytes(b"x")
        for path in (left / "part.b2nd", left):
            os.utime(path, (0, 0))

    for name, change in (
        ("a model that was half imported", half_imported),
        ("a model whose import was killed before it was renamed", whole_but_not_renamed),
        ("a folder that a killed prediction has left", of_a_killed_prediction),
    ):
        yield _trial(template, name, MODEL, change, predict, expect, "leftovers", raw=True)

    def half_checkpoint(model: Path) -> None:
        (model / "fold_1").mkdir()
        (model / "fold_1" / ".abcd1234.tmp.safetensors").write_bytes(b"\0" * 100)

    done = Accepted(says=("fold 1",))
    name = "a checkpoint that a killed training has left"
    yield _trial(template, name, MODEL, half_checkpoint, TRAIN, done, "leftovers", raw=True)
