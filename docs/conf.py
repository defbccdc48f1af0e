"""How Sphinx builds these pages; ``make docs`` runs it, and fails on every warning."""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import Any

project = "timesformer-onnx"
author = "the authors of timesformer-onnx"
copyright = author  # noqa: A001  # Sphinx's name
release = version = version_of("timesformer-onnx")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
]

html_theme = "furo"
html_title = f"{project} {version}"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
smartquotes = False  # they would make one dash of the two in --option

# Every heading down to the third level can be linked to; a link to one that is not there fails.
myst_heading_anchors = 3

# References to this project's own names must resolve. Those of others would need the network.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!timesformer_).*")]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def setup(app: Any) -> None:
    """Shows the commands' help as it is: a pattern such as ``**/*.mp4`` is not emphasis."""
    app.connect("sphinx-click-process-description", _escape)


def _escape(_app: Any, _context: Any, lines: list[str]) -> None:
    lines[:] = [line.replace("*", r"\*") for line in lines]
