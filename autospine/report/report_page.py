"""A report as one HTML file, which asks nothing of any network and runs nothing but its own script."""

import base64
import gzip
import hashlib
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from autospine.report.picture_layers import DISAGREEMENT, colour_code
from autospine.report.report_content import Guide, ReportCase, ReportContent
from autospine.storage.atomic import replacing

PAGE = Path(__file__).parent / "page"
"""Folder of the page's template, style and scripts."""

STYLE = "report.css"

SCRIPTS = (
    *("elements.js", "commands.js", "marks.js", "table.js", "cases.js", "charts.js"),
    *("scene.js", "volumes.js", "report.js"),
)
"""Parts of the page's script, which are joined: the first is used by all, the last starts them."""

NIIVUE = PAGE / "niivue" / "niivue.umd.js"
"""The viewer of volumes, which the page holds packed and starts on demand."""

CASE_GUIDE = Guide(
    shown="All cases, the worst first: failed ones, then by score. Beside the table the chosen case: through "
    "its worst place, where prediction and reference are farthest apart, and along the middle of the spine.",
    good="Outlines follow the edges of the structures, every vertebra has one colour, and few voxels differ.",
    action="Go through the cases from the top, read what is wrong, look at the reference and the "
    "differences, and mark what fails. Cases whose reference is wrong need correction, those with artefacts "
    "a decision.",
)

UNSCORED_GUIDE = Guide(
    shown="All cases, failed ones first. Beside the table the chosen case, along the middle of the spine.",
    good="Outlines follow the edges of the structures, and every vertebra has one colour.",
    action="Go through the cases, turn the labels off and on, and mark what fails or has artefacts.",
)


def write_page(path: Path, report: ReportContent) -> None:
    """Write a report; a page that is there is replaced as a whole.

    Args:
        path: Path of the HTML file.
        report: The content. All of its text is shown as text, whatever it contains.
    """
    style, *scripts = (Markup((PAGE / name).read_text(encoding="utf-8")) for name in (STYLE, *SCRIPTS))
    script = Markup("\n").join(scripts)
    niivue = NIIVUE.read_bytes() if any(case.volumes for case in report.cases) else b""
    stream = (
        _environment()
        .get_template("report.html")
        .stream(
            report=report,
            key=hashlib.sha256(report.folder.encode(errors="backslashreplace")).hexdigest()[:16],
            policy=_policy(style, script, niivue),
            style=style,
            script=script,
            difference=colour_code(DISAGREEMENT),
            case_guide=report.case_guide or (CASE_GUIDE if report.metric else UNSCORED_GUIDE),
            choices=_choices(report),
            columns=_columns(report),
            scores=_scores(report),
            as_data=_case_data,
            as_volumes=lambda case: _volume_data(case, report),
            niivue=base64.b64encode(gzip.compress(niivue, mtime=0)).decode("ascii") if niivue else "",
        )
    )
    stream.enable_buffering(64)
    with (
        replacing(path) as temporary,
        # Names of files may be no text at all.
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        file.writelines(stream)


@cache
def _environment() -> Environment:
    """Return what makes pages of the template."""
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    environment.filters["code"] = _with_code
    return environment


def _policy(style: str, script: str, niivue: bytes) -> str:
    """Return the content security policy: this style, these scripts, pictures in the page, nothing else."""
    scripts = " ".join(_hash(each) for each in (script.encode(), niivue) if each)
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style.encode())}; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(content: bytes) -> str:
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def _case_data(case: ReportCase) -> dict[str, object]:
    """Return what the page shows of a case at once."""
    return asdict(replace(case, volumes=None, vertebrae=()))


def _volume_data(case: ReportCase, report: ReportContent) -> dict[str, object]:
    """Return what the viewer in 3D needs of a case, if that has volumes."""
    assert case.volumes is not None
    classes = [{"name": name, "colour": colour} for name, colour in report.indices]
    return {**asdict(case.volumes), "classes": classes}


def _with_code(text: str) -> Markup:
    """Return a text as HTML in which what stands between backticks is code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts)
    )


def _columns(report: ReportContent) -> tuple[str, ...]:
    """Return the columns of the table that tell cases apart, beside name, score and marks."""
    cases = report.cases
    known = [name for name in ("modality", "site") if any(getattr(case, name) for case in cases)]
    return (*known, *(["status"] if len({case.status for case in cases}) > 1 else []))


def _choices(report: ReportContent) -> dict[str, tuple[str, ...]]:
    """Return the filters of the table that have something to choose."""
    found = {
        "modality": [case.modality for case in report.cases],
        "site": [case.site for case in report.cases],
        "class": [name for case in report.cases for name in case.scores],
    }
    values = {key: tuple(dict.fromkeys(filter(None, each))) for key, each in found.items()}
    return {
        key: each if key == "class" else tuple(sorted(each)) for key, each in values.items() if len(each) > 1
    }


def _scores(report: ReportContent) -> dict[str, object]:
    """Return what the table is ordered by: the first metric's mean and its value of each class."""
    return {
        "descending": not report.higher_is_better,
        "cases": [
            {"mean": case.score, "classes": {name: _first(case, name) for name in case.scores}}
            for case in report.cases
        ],
    }


def _first(case: ReportCase, name: str) -> float | None:
    return next(iter(case.scores[name].values()), None)
