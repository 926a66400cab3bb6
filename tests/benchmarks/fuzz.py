"""Coverage-guided fuzzing of what reads other people's files: `make fuzz`.

    python tests/benchmarks/fuzz.py [--seconds 600] [--only READER ...] [--corpus FOLDER]

For each reader Atheris (libFuzzer) changes sound files, keeps what reaches new lines of AutoSpine, and
changes that. A reader may return, or raise an `AutospineError`; every other exception is a crash, and so is
an answer that takes more than 20 seconds or 2 GB. The input of a crash is kept in the corpus, and `--corpus`
with the same folder goes on from what an earlier run has found. Prints one JSON object last: the inputs that
each reader was given, and the last line of a crash, which ends its fuzzing.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

SCRATCH = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
SECONDS_AN_INPUT, MEGABYTES = 20, 2048

EXCEPTION = re.compile(r"^ *([\w.]*(?:Error|Exception)\b.*|==\d+== ?ERROR: .*)$", re.MULTILINE)

Reader = Callable[[Path], object]


def _image(path: Path) -> object:
    from autospine.io.images import read_volume

    return read_volume([path])


def _dataset(path: Path) -> object:
    from autospine.dataset.description import load_labels

    return load_labels(path)


def _case_table(path: Path) -> object:
    from autospine.dataset.case_table import read_case_table

    return read_case_table(path)


def _plan(path: Path) -> object:
    from autospine.plan import Plan
    from autospine.storage.serialization import read_json

    return read_json(path, Plan)


def _marks(path: Path) -> object:
    from autospine.dataset.case_marks import read_marks

    return read_marks(path)


def _scores(path: Path) -> object:
    from autospine.report.folder_report import write_report

    return write_report(path.parent, path.parent / "page.html", most_pictured=0)


def _model(path: Path) -> object:
    from autospine.models.archive import opened_model

    with opened_model(path) as model:
        return model


READERS: dict[str, tuple[Reader, str]] = {
    "nifti": (_image, "image.nii"),
    "nifti.gz": (_image, "image.nii.gz"),
    "mha": (_image, "image.mha"),
    "nrrd": (_image, "image.nrrd"),
    "dataset": (_dataset, "dataset.json"),
    "cases": (_case_table, "cases.csv"),
    "plan": (_plan, "plan.json"),
    "marks": (_marks, "marks.json"),
    "scores": (_scores, "evaluation.json"),
    "model": (_model, "model.autospine"),
}
"""What reads a file, and the name that the file has."""


def seeds(name: str, folder: Path) -> Iterator[bytes]:
    """Yield sound files for a reader."""
    import makers
    import odd_images

    from autospine.storage.serialization import to_json

    images = {"nifti": ".nii", "nifti.gz": ".nii.gz", "mha": ".mha", "nrrd": ".nrrd"}
    described = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "L1": 20}, "numTraining": 1}
    marks = {"format_version": 1, "kind": "autospine marks", "report": "", "folder": ""}
    if name in images:
        for number, make in enumerate(odd_images.SOUND.values()):
            place = folder / str(number)
            place.mkdir()
            path = make(place)
            if path.name.lower().endswith(images[name]):
                yield path.read_bytes()
    elif name == "dataset":
        yield json.dumps({**described, "file_ending": ".nii.gz"}).encode()
        yield json.dumps({**described, "regions_class_order": [1, 2], "file_ending": ".mha"}).encode()
    elif name == "cases":
        yield b"case,modality,site,subject\nspine_001,CT,Bern,p1\nspine_002,MR,,\n"
    elif name == "plan":
        yield to_json(makers.plan()).encode()
    elif name == "marks":
        yield json.dumps({**marks, "cases": {"a": {"mark": "fail", "grade": 3, "note": "cut"}}}).encode()
    elif name == "scores":
        import report_folders

        yield (report_folders.evaluated_folder(folder, "--no-report") / "evaluation.json").read_bytes()
    elif name == "model":
        from autospine.models.model_export import export_model
        from autospine.models.model_folder import open_model

        makers.write_model(folder / "small")
        export_model(open_model(folder / "small"), folder / "small.autospine")
        yield (folder / "small.autospine").read_bytes()


def fuzz_here(name: str, arguments: list[str]) -> None:
    """Fuzz a reader in this process, which libFuzzer ends."""
    import atheris

    reader, file_name = READERS[name]
    with atheris.instrument_imports(include=["autospine"]):
        from autospine.core.errors import AutospineError

        reader_of_nothing = Path(tempfile.mkdtemp(dir=SCRATCH)) / file_name
        with suppress(AutospineError, OSError):
            reader(reader_of_nothing)  # so that all that it imports is instrumented

    def once(data: bytes) -> None:
        with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
            path = Path(folder) / file_name
            path.write_bytes(data)
            try:
                reader(path)
            except AutospineError:
                return

    atheris.Setup([sys.argv[0], *arguments], once)
    atheris.Fuzz()


def fuzz(name: str, corpus: Path, seconds: int) -> tuple[int, list[str]]:
    """Fuzz a reader in a process of its own; return the number of inputs, and the last line of each crash."""
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate(seeds(name, Path(folder))):
            (corpus / f"seed_{number:03d}").write_bytes(content)
    limits = (f"-max_total_time={seconds}", f"-timeout={SECONDS_AN_INPUT}", f"-rss_limit_mb={MEGABYTES}")
    command = [sys.executable, __file__, "--child", name, *limits, f"-artifact_prefix={corpus}/", str(corpus)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    counts = re.findall(r"^#(\d+)", done.stderr, re.MULTILINE)
    crashes = []
    if done.returncode:
        # The exception is told on standard output, what libFuzzer itself has found on standard error.
        told = EXCEPTION.findall(done.stdout + done.stderr)
        crashes.append(told[0] if told else f"exit code {done.returncode}")
    return int(counts[-1]) if counts else 0, crashes


def main() -> None:
    """Fuzz, and print the figures; or be the process that fuzzes a reader."""
    if sys.argv[1:2] == ["--child"]:
        fuzz_here(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=600, help="for each reader")
    parser.add_argument(
        "--only", nargs="+", choices=list(READERS), default=list(READERS), help="readers to fuzz"
    )
    parser.add_argument("--corpus", type=Path, help="folder that keeps inputs")
    options = parser.parse_args()
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.only:
            tried, crashes = fuzz(name, (options.corpus or Path(temporary)) / name, options.seconds)
            figures[name] = {"inputs": tried, "crashes": crashes}
            print(name, figures[name], file=sys.stderr)  # noqa: T201
    print(json.dumps(figures))  # noqa: T201


if __name__ == "__main__":
    main()
