"""The page that shows explanations: one HTML file beside their folders, without any network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from timesformer_runtime.errors import printable
from timesformer_runtime.extras import evaluate_extra

with evaluate_extra():
    import jinja2

MARK = "timesformer-onnx explain"  # in every page


@dataclasses.dataclass(frozen=True)
class Section:
    """A video, or a window of one, on the page.

    Attributes:
        title: Its name.
        answer: The labels with their scores, best first.
        pictures: The name of each picture's file and its description.
        video: The overlay's file; None where there is none.
        facts: Sentences for the reader.
        problems: What is wrong with the file.
    """

    title: str
    answer: tuple[tuple[str, float], ...]
    pictures: tuple[tuple[str, str], ...]
    video: str | None = None
    facts: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def page(explanations: Mapping[str, Mapping[str, Any]]) -> str:
    """Writes the page.

    Args:
        explanations: By the name of their folder, the facts about each explanation; the entry
            ``sections`` has those of a ``Section``.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["address"] = _address
    environment.filters["shown"] = printable
    source = files("timesformer_runtime.explain").joinpath("page.html").read_text("utf-8")
    return environment.from_string(source).render(mark=MARK, explanations=explanations)


def _address(file: str, folder: str) -> str:
    return quote(f"{folder}/{file}")
