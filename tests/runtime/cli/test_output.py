"""What commands print."""

from __future__ import annotations

import io
import sys

import pytest
from timesformer_runtime.cli.output import echo, say


class Writes(io.StringIO):
    """A stream that keeps the texts which it got, each for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def write(self, text: str) -> int:
        self.texts.append(text)
        return len(text)


def test_a_line_and_its_end_are_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two writes another thread could print its own line."""
    output, errors = Writes(), Writes()
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stderr", errors)
    echo("a result")
    say("a message")
    assert list(filter(None, output.texts)) == ["a result\n"]
    assert list(filter(None, errors.texts)) == ["a message\n"]
