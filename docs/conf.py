"""The site of these pages, which Sphinx builds into `site/`: `make docs`.

The source is the whole repository, so that the README, the changelog and the pages beside them are part of
the site and links between them lead where they lead in the repository. The list at the README's end is the
navigation. Nothing in the site is fetched from elsewhere.
"""

import re
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

from autospine import __version__

ROOT = Path(__file__).resolve().parents[1]

project = "AutoSpine"
version = release = __version__
project_copyright = "the authors of AutoSpine"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**"]
# Folders that need not be searched for pages.
exclude_patterns = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "docs"]
highlight_language = "text"

# Anchors of headings as GitHub makes them, down to ####.
myst_heading_anchors = 4

# Names in single backticks are code in docstrings as they are in Markdown.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"AutoSpine {release}"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_copy_source = False

BULLET = re.compile(r"^- (?:([A-Z][\w ]+): )?(.*)$", re.MULTILINE)
PAGE = re.compile(r"\]\(([^)#]+)\.md\)")
START = """<!DOCTYPE html>
<meta charset="utf-8">
<title>AutoSpine</title>
<meta http-equiv="refresh" content="0; url=README.html">
<a href="README.html">AutoSpine</a>
"""


def setup(app: Sphinx) -> None:
    """Add the navigation to the pages that it begins at, and the page that a browser opens first."""
    app.add_lexer("csv", TextLexer)
    app.connect("source-read", _add_navigation)
    app.connect("build-finished", _write_start)


def _add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Append the lists of pages, which the reader of the Markdown does not see."""
    if page == root_doc:
        _, _, listed = source[0].partition("\n## Documentation\n")
        bullets = BULLET.findall(listed.partition("\n## ")[0])
        source[0] += "".join(_toctree(caption, PAGE.findall(links)) for caption, links in bullets)
    elif page == "docs/results/README":
        source[0] += _toctree("", ["*"])


def _toctree(caption: str, pages: list[str]) -> str:
    options = [":hidden:", ":glob:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["", "", "```{toctree}", *options, "", *pages, "```", ""])


def _write_start(app: Sphinx, failed: Exception | None) -> None:
    """Write `index.html`, which leads to the README."""
    if failed is None:
        (app.outdir / "index.html").write_text(START, encoding="utf-8")
