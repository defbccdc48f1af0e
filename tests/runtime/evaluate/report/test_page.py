"""The page as a file; tests/javascript/report.test.js opens it in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from timesformer_runtime.errors import InvalidVideoError, OutputError
from timesformer_runtime.evaluate.report import write_report

from tests import made_up_reports
from tests.evaluation_lines import line_of, random_lines
from tests.made_up_reports import HOSTILE, TRANSITIONS, metrics_of, moving_square

VOID = {"meta", "img", "input"}


class Elements(HTMLParser):
    """Collects the elements of a page and the texts of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[dict[str, str | None]] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


def page_of(
    tmp_path: Path, labels: list[str] = TRANSITIONS, videos: int = 30, **values: Any
) -> tuple[Elements, str]:
    """Writes the report of random answers; returns its elements and its text."""
    lines = list(random_lines(videos, labels))
    path = tmp_path / "report.html"
    write_report(path, metrics_of(lines, labels, ["fp32", "int8"], **values), lines, moving_square)
    text = path.read_text(encoding="utf-8")
    return Elements(text), text


def data_of(elements: Elements) -> Any:
    return json.loads(elements.scripts[0])


@pytest.mark.parametrize("write", made_up_reports.REPORTS.values(), ids=made_up_reports.REPORTS)
def test_every_element_is_closed_and_every_id_is_one_elements(
    tmp_path: Path, write: Callable[..., None]
) -> None:
    path = tmp_path / "report.html"
    write(path, **({"videos": 500} if write is made_up_reports.large else {}))
    elements = Elements(path.read_text(encoding="utf-8"))
    assert elements.open == []
    ids = [attributes["id"] for attributes in elements.attributes if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in elements.attributes:
        for name in ("aria-labelledby", "aria-controls", "for", "list"):
            assert attributes.get(name) in {None, *ids}
        if (attributes.get("href") or "").startswith("#"):
            assert (attributes["href"] or "")[1:] in ids


def test_hostile_names_make_no_elements(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    made_up_reports.hostile(path)
    text = path.read_text(encoding="utf-8")
    elements = Elements(text)
    assert elements.names.count("script") == 2
    pictures = [a for n, a in zip(elements.names, elements.attributes, strict=True) if n == "img"]
    assert all((attributes["src"] or "").startswith("data:image/jpeg") for attributes in pictures)
    handlers = [name for a in elements.attributes for name in a if name.startswith("on")]
    assert handlers == []
    assert data_of(elements)["labels"][:6] == HOSTILE[:6]
    assert "\x1b" not in text


def test_the_page_asks_for_nothing(tmp_path: Path) -> None:
    elements, text = page_of(tmp_path)
    (policy,) = [
        attributes["content"]
        for attributes in elements.attributes
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)", text)
    assert "url(" not in text


def test_without_frames_there_are_no_pictures(tmp_path: Path) -> None:
    lines = list(random_lines(30, TRANSITIONS))
    path = tmp_path / "report.html"
    write_report(path, metrics_of(lines, TRANSITIONS, ["int8"]), lines)
    assert "img" not in Elements(path.read_text(encoding="utf-8")).names


def test_frames_are_read_for_the_worst_mistakes_only(tmp_path: Path) -> None:
    asked = []

    def frames(line: Any) -> Any:
        asked.append(line["file"])
        raise InvalidVideoError(f"{line['file']} is <gone>")

    lines = list(random_lines(300, TRANSITIONS))
    path = tmp_path / "report.html"
    write_report(path, metrics_of(lines, TRANSITIONS, ["int8"]), lines, frames)
    assert len(set(asked)) == len(asked) == 16
    assert f"could not be read again: {asked[0]} is &lt;gone&gt;" in path.read_text()


def test_of_many_frames_some_are_shown_with_their_times(tmp_path: Path) -> None:
    line = line_of(0, [0], {"m": [0.1, 0.9]}, ["a", "b"])
    line["times"] = [place / 4 for place in range(96)]
    frames = [np.full((200, 300, 3), place, np.uint8) for place in range(96)]
    path = tmp_path / "report.html"
    write_report(path, metrics_of([line], ["a", "b"], ["m"]), [line], lambda _: frames)
    text = path.read_text(encoding="utf-8")
    times = re.findall(r"<figcaption>([0-9.]+) s</figcaption>", text)
    assert times == [f"{place / 4:.2f}" for place in range(0, 96, 6)]


def test_a_model_without_times_numbers_its_frames(tmp_path: Path) -> None:
    line = line_of(0, [0], {"m": [0.1, 0.9]}, ["a", "b"])
    line["times"] = None
    path = tmp_path / "report.html"
    frames = [np.zeros((8, 8, 3), np.uint8)] * 2
    write_report(path, metrics_of([line], ["a", "b"], ["m"]), [line], lambda _: frames)
    assert "<figcaption>2</figcaption>" in path.read_text(encoding="utf-8")


def test_large_matrices_are_data_with_confused_classes_side_by_side(tmp_path: Path) -> None:
    labels = [f"class {place}" for place in range(40)]
    # Each even class is taken for the odd one 20 places on, or back.
    lines = []
    for number in range(400):
        true = number % 40
        best = true if number % 3 or true % 2 else (true + 20) % 40
        scores = [float(place == best) for place in range(40)]
        lines.append(line_of(number, [true], {"m": scores}, labels))
    path = tmp_path / "report.html"
    write_report(path, metrics_of(lines, labels, ["m"]), lines)
    elements = Elements(path.read_text(encoding="utf-8"))
    assert "canvas" in elements.names
    (model,) = data_of(elements)["models"]
    assert sorted(model["order"]) == list(range(40))
    rows = {place: row for row, place in enumerate(model["order"])}
    assert all(abs(rows[place] - rows[place + 20]) == 1 for place in range(0, 20, 2))
    assert sum(model["confusion"][2::3]) == 400


def test_a_score_that_is_not_a_number_is_null_in_the_data(tmp_path: Path) -> None:
    line = line_of(0, [0], {"m": [0.1, 0.9]}, ["a", "b"])
    line["results"]["m"] = {"top": [["a", float("nan")]], "true": [[float("nan"), 1]]}
    path = tmp_path / "report.html"
    write_report(path, metrics_of([line], ["a", "b"], ["m"]), [line])
    text = path.read_text(encoding="utf-8")
    mistakes = data_of(Elements(text))["models"][0]["mistakes"]
    assert mistakes["best"] == mistakes["score"] == [None]
    assert "scores that are not numbers" in text


def test_scores_without_a_function_are_plain_numbers(tmp_path: Path) -> None:
    line = line_of(0, [0], {"m": [1.25, 7.5]}, ["a", "b"])
    path = tmp_path / "report.html"
    write_report(path, metrics_of([line], ["a", "b"], ["m"], "none"), [line])
    text = path.read_text(encoding="utf-8")
    assert "Calibration" not in text
    assert "7.500" in text
    assert data_of(Elements(text))["isShare"] is False


def test_no_model_and_no_line_make_a_page(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, {"labels": [], "function": "softmax", "evaluated": {}}, [])
    assert Elements(path.read_text(encoding="utf-8")).open == []


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    lines = list(random_lines(3, TRANSITIONS))
    metrics = metrics_of(lines, TRANSITIONS, ["int8"])
    with pytest.raises(OutputError, match="cannot be written: No such file"):
        write_report(tmp_path / "gone" / "report.html", metrics, lines)


def test_nothing_is_left_beside_the_page(tmp_path: Path) -> None:
    page_of(tmp_path)
    page_of(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
