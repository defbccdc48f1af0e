"""Fixtures for the tests of reader processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from timesformer_runtime import VideoClassifier

from tests.isolated_videos import load, write_samples


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes the exported model ``shots`` and videos: intact, white and damaged ones."""
    return write_samples(tmp_path_factory.mktemp("isolation"))


@pytest.fixture(scope="module")
def plain(folder: Path) -> VideoClassifier:
    return VideoClassifier.from_pretrained(folder / "shots", device="cpu", threads=1)


@pytest.fixture(scope="module")
def isolated(folder: Path) -> VideoClassifier:
    return load(folder)
