"""The site of the documentation builds without a warning, and needs no network when it is opened."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import autospine

ROOT = Path(__file__).parents[2]
PAGES = [
    *(Path(name) for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *(path.relative_to(ROOT) for path in sorted((ROOT / "docs").rglob("*.md"))),
]
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"([^\"]+)\"|<link\b[^>]*\bhref=\"([^\"]+)\""
)
STYLES = re.compile(r"(?:@import|url\()\s*[\"']?(?:https?:)?//")

pytestmark = [
    pytest.mark.skipif(
        any(find_spec(name) is None for name in ("sphinx", "myst_parser", "furo")),
        reason="the site needs its tools: make site-tools, or pip install -c constraints.txt -e '.[docs]'",
    ),
    pytest.mark.timeout(900),  # half a minute on a machine with nothing else to do
]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site as `make docs` builds it; broken links and anchors are warnings, and warnings are errors."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"),
            *("--conf-dir", "docs", "--doctree-dir", str(folder / "doctrees"), ".", str(folder / "html")),
        ],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "html"


def test_every_page_is_in_the_site_and_in_its_navigation(site):
    start = (site / "README.html").read_text(encoding="utf-8")
    navigation = start[start.index('class="sidebar-tree"') :]
    for page in PAGES[1:]:
        assert (site / page.with_suffix(".html")).is_file(), page
        assert f'href="{page.with_suffix(".html").as_posix()}"' in navigation, page
    assert "url=README.html" in (site / "index.html").read_text(encoding="utf-8")


def test_nothing_is_fetched_from_elsewhere(site):
    for page in site.rglob("*.html"):
        for found in FETCHED.findall(page.read_text(encoding="utf-8")):
            target = "".join(found)
            assert "//" not in target, (page.name, target)
    for style in site.rglob("*.css"):
        assert not STYLES.search(style.read_text(encoding="utf-8")), style.name
    assert (site / "searchindex.js").is_file()  # the search runs in the browser


def test_every_public_name_is_described_from_its_docstring(site):
    page = (site / "docs" / "reference" / "python.html").read_text(encoding="utf-8")
    for name in set(autospine.__all__) - {"__version__"}:
        assert f'id="autospine.{name}"' in page, name
    assert "segment one case" in page.lower()
