"""Fixtures for the tests of the service: a model, videos, and a running service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from timesformer_runtime import VideoClassifier

from tests.service import ServiceProcess, served
from tests.tiny_graphs import moving_frames, write_exported_model, write_video


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model ``shots``, two videos and a text."""
    folder = tmp_path_factory.mktemp("serve")
    write_exported_model(folder / "shots")
    write_video(folder / "short.mp4", moving_frames(21))
    write_video(folder / "long.mp4", moving_frames(100))
    (folder / "text.mp4").write_text("no video\n" * 50)
    return folder


@pytest.fixture(scope="session")
def classifier(folder: Path) -> VideoClassifier:
    return VideoClassifier.from_pretrained(folder / "shots", device="cpu", threads=1)


@pytest.fixture(scope="session")
def service(folder: Path) -> Iterator[ServiceProcess]:
    with served(folder / "shots", "--device", "cpu", "--threads", "2") as service:
        yield service


@pytest.fixture(scope="session")
def client(service: ServiceProcess) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client
