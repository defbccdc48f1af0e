"""JSON from anyone: limits, and one clear line for each thing that is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from timesformer_runtime.errors import InvalidModelError, listed, quoted
from timesformer_runtime.json_object import (
    parse_json_object,
    read_json_object,
    whole_number,
)


def refusal(path: Path) -> str:
    with pytest.raises(InvalidModelError) as caught:
        read_json_object(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 1000
    message.encode()  # it can be shown anywhere
    return message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not valid JSON"),
        (b'{"a": 1,}', "is not valid JSON"),
        (b"[1]", "holds a list, not a JSON object"),
        (b"null", "holds a NoneType, not a JSON object"),
        (b'{"a": "\xff"}', "cannot be read as UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "cannot be read as UTF-8"),
        (b'{"id2label": {"0": "half \\ud83d"}}', "half of a surrogate pair"),
        (b'{"\\udc00": 1}', "half of a surrogate pair"),
        (b'{"a": ["' + b"x" * 5000 + b'\\ud800"]}', "half of a surrogate pair"),
        (b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", "nested more than 64 levels deep"),
        (b'{"a": ' * 100_000 + b"1" + b"}" * 100_000, "nested more than 64 levels deep"),
        (b"[" * 1_000_000, "nested more than 64 levels deep"),
        (b" " * (17 << 20), "has more than 16 MB"),
    ],
    ids=range(13),
)
def test_what_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    assert said in refusal(path)


def test_a_size_that_is_only_claimed_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(20 << 30)  # sparse: it takes no place on the disk
    assert "has more than 16 MB" in refusal(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path / "absent.json")
    assert "is not a file" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe.json")  # to open it would wait for a writer
    assert "is not a file" in refusal(tmp_path / "pipe.json")


def test_what_editors_and_trainers_write(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    values = {"name": "caf\u00e9 \U0001f600", "deep": [[[[{"a": [1]}]]]], "none": None, "x": 1e-6}
    for text in (json.dumps(values), json.dumps(values, ensure_ascii=False)):
        for mark in ("", "\ufeff"):
            path.write_text(mark + text, encoding="utf-8")
            assert read_json_object(path) == values


def test_numbers_that_no_field_can_hold_are_left_to_the_field() -> None:
    digits = "9" * 5000
    text = f'{{"a": {digits}, "b": -{digits}, "c": NaN, "d": 1e999, "e": {(1 << 64) - 1}}}'
    values = parse_json_object(text, "it")
    assert values["a"] == float("inf")
    assert values["b"] == -float("inf")
    assert values["c"] != values["c"]
    assert values["d"] == float("inf")
    assert values["e"] == (1 << 64) - 1


def test_whole_numbers() -> None:
    assert [whole_number(value) for value in (8.0, 8, "8", None)] == [8, 8, "8", None]
    assert type(whole_number(8.0)) is int
    for value in (8.5, float("inf"), float("nan"), True):
        assert type(whole_number(value)) is type(value)


def test_long_values_are_shortened() -> None:
    for value in ("x" * 10**6, list(range(10**5)), {str(i): i for i in range(10**5)}, 10**10**4):
        assert len(quoted(value)) < 200
    assert quoted("it's") == '"it\'s"'
    assert quoted([224, 224]) == "[224, 224]"
    deep: list[object] = [1]
    for _ in range(9):
        deep = [deep] * 9
    assert len(quoted(deep)) < 400


def test_long_lists_are_shortened() -> None:
    assert listed([]) == ""
    assert listed(["a", "b"]) == "a, b"
    assert listed(map(str, range(11))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..."
    assert listed(["x" * 100] * 9).endswith("x, ...")
    assert len(listed(["x" * 10**6] * 100, 100)) < 1000
