"""Every block of code on a page is run or read by a test: all kinds of them, and the small ones here."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from autospine.dataset.case_table import read_case_table
from planners.overrides import read_overrides

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

ELSEWHERE = {"sh", "bash", "python", "json", "{eval-rst}"}
"""Kinds that test_docs.py runs or reads, job scripts, which test_cluster_scripts.py runs, and the directives
that test_site.py builds."""

HERE = {"toml", "yaml", "csv", "markdown", ""}

COMMAND = re.compile(r"^\s*(?:\$ )?(?:autospine|make|pip|python3?|torchrun|sbatch|git) ", re.MULTILINE)


def fences(kind: str) -> list[Any]:
    return [
        pytest.param(body, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, (found, body) in enumerate(FENCE.findall(page.read_text(encoding="utf-8")))
        if found == kind
    ]


def test_no_block_is_of_a_kind_that_nothing_reads():
    kinds = {kind for page in PAGES for kind, _ in FENCE.findall(page.read_text(encoding="utf-8"))}
    assert kinds <= ELSEWHERE | HERE
    assert all(page.read_text(encoding="utf-8").count("\n```") % 2 == 0 for page in PAGES)


@pytest.mark.parametrize("block", fences(""))
def test_plain_blocks_hide_no_command(block):
    assert not COMMAND.search(block), "write ```sh, so that the command is checked"


@pytest.mark.parametrize("block", fences("toml"))
def test_toml_examples_declare_entry_points(block):
    points = tomllib.loads(block)["project"]["entry-points"]
    assert set(points) <= {f"autospine.{kind}" for kind in ("losses", "metrics", "networks", "trackers")}


@pytest.mark.parametrize("block", fences("yaml"))
def test_yaml_examples_are_overrides_of_the_planner_or_settings_of_a_cluster(block, tmp_path):
    if block.startswith("jobqueue:"):
        jobqueue = pytest.importorskip("dask_jobqueue")
        known = yaml.safe_load(Path(jobqueue.__file__).with_name("jobqueue.yaml").read_text())
        assert yaml.safe_load(block)["jobqueue"]["slurm"].keys() <= known["jobqueue"]["slurm"].keys()
        return
    (tmp_path / "overrides.yaml").write_text(block, encoding="utf-8")
    read_overrides(tmp_path / "overrides.yaml")


@pytest.mark.parametrize("block", fences("csv"))
def test_csv_examples_are_tables_of_cases(block, tmp_path):
    (tmp_path / "cases.csv").write_text(block, encoding="utf-8")
    rows, faults = read_case_table(tmp_path / "cases.csv")
    assert rows
    assert not faults
