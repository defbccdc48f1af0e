"""How Sphinx builds these pages; ``make docs`` runs it, and fails on every warning."""

from __future__ import annotations

import re
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

_OPTION = re.compile(r"(?<![`\w-])--[a-z][a-z-]*")


def setup(app: Any) -> None:
    """Adjusts docstrings and help texts of the code, which are written for terminals."""
    app.connect("sphinx-click-process-description", _escape_patterns)
    app.connect("sphinx-click-process-description", _quote_options)
    app.connect("sphinx-click-process-options", _quote_options)
    app.connect("autodoc-process-docstring", _leave_out_of_modules)


def _escape_patterns(_app: Any, _context: Any, lines: list[str]) -> None:
    """Escapes asterisks, so that a pattern such as ``**/*.mp4`` does not become emphasis."""
    lines[:] = [line.replace("*", r"\*") for line in lines]


def _quote_options(_app: Any, _context: Any, lines: list[str]) -> None:
    """Quotes each ``--option`` in a sentence, so that its two dashes do not become one."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith(".. "):
            lines[number] = _OPTION.sub(r"``\g<0>``", line)


def _leave_out_of_modules(_app: Any, kind: str, *arguments: Any) -> None:
    """Drops the docstrings of modules, because the pages introduce the packages."""
    if kind == "module":
        arguments[-1].clear()
