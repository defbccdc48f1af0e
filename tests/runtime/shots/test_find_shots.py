"""Shots and transitions of whole files, with a model that looks at grey levels."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from timesformer_runtime import (
    DecodeLimits,
    InvalidModelError,
    InvalidOptionError,
    InvalidVideoError,
    VideoClassifier,
    VideoNotFoundError,
    Views,
)
from timesformer_runtime.input.sampling import Sampling
from timesformer_runtime.shots import find_shots, reading

from tests.patience import PATIENCE
from tests.shot_graph import levels_of, textured, write_shot_model
from tests.tiny_graphs import write_exported_model, write_video

RATE = 25


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shot_model(tmp_path_factory.mktemp("model") / "shots")


@pytest.fixture(scope="module")
def classifier(model: Path) -> VideoClassifier:
    return VideoClassifier.from_pretrained(model, device="cpu", threads=1)


def test_cuts_lie_on_exact_frames(classifier: VideoClassifier, tmp_path: Path) -> None:
    levels, starts = levels_of([(40, 60), (33, 180), (71, 90), (30, 150), (50, 40)])
    video = write_video(tmp_path / "film.mp4", textured(levels), RATE)
    found = find_shots(classifier, video)
    assert [(one.kind, one.first, one.last) for one in found.transitions] == [
        ("cut", start, start) for start in starts
    ]
    assert [(shot.first, shot.last) for shot in found.shots] == [
        (0, 39), (40, 72), (73, 143), (144, 173), (174, 223)
    ]  # fmt: skip
    assert found.shots[1].start == pytest.approx(40 / RATE)
    assert found.shots[-1].end == pytest.approx(len(levels) / RATE)
    assert found.shots[2].opening == found.transitions[1]
    assert found.shots[0].opening is None
    assert found.rate == RATE


def test_gradual_transitions_have_a_first_and_a_last_frame(
    classifier: VideoClassifier, tmp_path: Path
) -> None:
    levels, _ = levels_of([(60, 60), (70, 180), (60, 90)], dissolve=16)
    video = write_video(tmp_path / "film.mp4", textured(levels), RATE)
    found = find_shots(classifier, video)
    assert [one.kind for one in found.transitions] == ["dissolve", "dissolve"]
    for one, first in zip(found.transitions, (60, 146), strict=True):
        assert abs(one.first - first) <= 2
        assert abs(one.last - (first + 15)) <= 2
    # Each shot has half of the transition.
    assert [shot.first for shot in found.shots] == [0, *(one.split for one in found.transitions)]


def test_a_video_without_transitions_is_one_shot(
    classifier: VideoClassifier, tmp_path: Path
) -> None:
    for count in (1, 5, 60):
        video = write_video(tmp_path / f"{count}.mp4", textured(np.full(count, 90.0)), RATE)
        found = find_shots(classifier, video)
        assert found.transitions == ()
        assert [(shot.first, shot.last) for shot in found.shots] == [(0, count - 1)]


def test_a_long_video_is_searched_in_parts(
    classifier: VideoClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    parts = [(int(rng.integers(30, 80)), 60 + 100 * (number % 2)) for number in range(30)]
    levels, starts = levels_of(parts)
    video = write_video(tmp_path / "long.mp4", textured(levels), RATE)
    assert len(levels) > 5 * 300
    for most, workers in ((10_000, 1), (300, 2)):
        monkeypatch.setattr(reading, "_MOST_FRAMES", most)
        found = find_shots(classifier, video, workers=workers)
        assert [(one.first, one.last) for one in found.transitions] == [
            (start, start) for start in starts
        ]
        assert len(found.times) == len(levels)


def test_summed_views_are_no_surer_than_one(tmp_path: Path) -> None:
    model = write_shot_model(tmp_path / "model", sure=10.0)
    levels, _ = levels_of([(60, 60), (70, 180)], dissolve=16)
    video = write_video(tmp_path / "film.mp4", textured(levels), RATE)
    scores = []
    for crops in (1, 3):
        views = Views(Sampling("uniform"), crops, protocol="facebook")
        classifier = VideoClassifier.from_pretrained(model, device="cpu", threads=1, views=views)
        (found,) = find_shots(classifier, video).transitions
        scores.append(1 - found.score)
    assert scores[1] == pytest.approx(scores[0], rel=0.5)


@pytest.mark.skipif(sys.platform != "linux", reason="reader processes need Linux")
def test_another_process_may_read(model: Path, tmp_path: Path) -> None:
    levels, starts = levels_of([(40, 60), (40, 180)])
    video = write_video(tmp_path / "film.mp4", textured(levels), RATE)
    isolated = VideoClassifier.from_pretrained(
        model, device="cpu", limits=DecodeLimits(isolated=True)
    )
    assert [one.first for one in find_shots(isolated, video).transitions] == starts


def test_progress_and_rate_are_told(
    classifier: VideoClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_MOST_FRAMES", 300)
    video = write_video(tmp_path / "film.mp4", textured(np.full(400, 90.0)), RATE)
    rates: list[float] = []
    progress: list[tuple[float, float | None]] = []
    find_shots(
        classifier,
        video,
        check_rate=rates.append,
        progress=lambda *told: progress.append(told),
    )
    assert rates == [RATE]
    assert progress
    assert all(0 < done <= 16 and total == pytest.approx(16) for done, total in progress)


def test_a_model_without_these_labels_is_refused(tmp_path: Path) -> None:
    other = VideoClassifier.from_pretrained(write_exported_model(tmp_path / "other"))
    with pytest.raises(InvalidModelError, match=r"no label dissolve \(it has none, cut, fade_in"):
        find_shots(other, tmp_path / "film.mp4")


def test_options_that_would_do_nothing_are_refused(model: Path, tmp_path: Path) -> None:
    views = Views(Sampling("center"))
    centered = VideoClassifier.from_pretrained(model, views=views)
    with pytest.raises(InvalidOptionError, match="sampling=center"):
        find_shots(centered, tmp_path / "film.mp4")


def test_bad_videos_are_errors(classifier: VideoClassifier, tmp_path: Path) -> None:
    with pytest.raises(VideoNotFoundError):
        find_shots(classifier, tmp_path / "missing.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InvalidVideoError):
        find_shots(classifier, tmp_path / "text.mp4")


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_ctrl_c_ends_a_search_in_a_silent_pipe(model: Path) -> None:
    command = [sys.executable, "-m", "timesformer_runtime", "timeline", str(model), "-", "--shots"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write("the beginning of a video")
    process.stdin.flush()
    assert "device" in process.stderr.readline()  # the model is loaded
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE) == 130
    process.stdin.close()
    assert process.stderr.read().splitlines()[-1] == "timesformer: interrupted"
