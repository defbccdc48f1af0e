"""Names of classes from a file: lines, and JSON in three shapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from timesformer_exporter.checkpoints.labels import read_labels
from timesformer_exporter.errors import InvalidOptionError

NAMES = ["abseiling", "air drumming", "naïve dance 踊り"]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(NAMES),
        "\r\n".join(NAMES) + "\r\n\r\n",
        "\ufeff" + "\n".join(f"  {name} " for name in NAMES),
        json.dumps(NAMES),
        json.dumps(dict(enumerate(NAMES)), indent=2),
        json.dumps({str(i): NAMES[i] for i in (2, 0, 1)}),
        json.dumps({name: i for i, name in enumerate(NAMES)}),
        "\n" + json.dumps(NAMES, ensure_ascii=False),
    ],
)
def test_every_form_gives_the_same_labels(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(text, encoding="utf-8")
    assert list(read_labels(path, 3).items()) == list(enumerate(NAMES))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\nb", "names 2 classes, but the checkpoint has 3"),
        ("", "names 0 classes, but the checkpoint has 3"),
        (json.dumps(["a"] * 4), "names 4 classes, but the checkpoint has 3"),
        ("a\n\nc", "'' as the name of class 1"),
        ('{"0": "a", "1": "b", "3": "c"}', "no name for class 2"),
        ('{"0": "a", "01": "b", "1": "c", "2": "d"}', "names class 1 twice"),
        ('{"zero": "a", "1": "b", "2": "c"}', "the key 'zero'"),
        ('{"a": 0, "b": 1, "c": 1}', "names class 1 twice"),
        ('["a", "b", 3]', "3 as the name of class 2"),
        ('{"a": 0.5, "b": 1, "c": 2}', "the key 'a'"),
        ('["a", "b"', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('["a", "b", "\\udfff"]', "text that is not Unicode"),
        ('["a", "b", NaN]', "nan as the name of class 2"),
        ('{"a": 0, "b": 1, "c": 1e999}', "the key 'a'"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidOptionError) as caught:
        read_labels(path, 3)
    assert said in str(caught.value)
    assert f"`labels` {path}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(InvalidOptionError, match="cannot be read"):
        read_labels(tmp_path / "none.txt", 3)
    binary = tmp_path / "labels.bin"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidOptionError, match="cannot be read"):
        read_labels(binary, 3)
