"""Advice and diagnosis where a model is near chance, or its labels look permuted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from timesformer_runtime import InvalidOptionError, VideoClassifier, Views
from timesformer_runtime.evaluate.advice import advise
from timesformer_runtime.evaluate.datasets import Sample
from timesformer_runtime.evaluate.diagnosis import diagnose
from timesformer_runtime.evaluate.label_orders import best_order
from timesformer_runtime.evaluate.metrics import measure
from timesformer_runtime.evaluate.sentences import sentence

from tests.evaluation_lines import line_of
from tests.tiny_graphs import (
    LABELS,
    moving_frames,
    preprocessor_config,
    write_exported_model,
    write_sidecars,
    write_video,
)

COUNT = 12
NAMES = tuple(f"label {letter}" for letter in "mcgkalfjbdih")


def metrics_of(pairs: Sequence[tuple[int, int]], labels: Sequence[str] = NAMES) -> dict[str, Any]:
    """Metrics of videos with these true and answered labels."""
    lines = []
    for number, (true, answered) in enumerate(pairs):
        scores = np.full(len(labels), 0.1 / (len(labels) - 1))
        scores[answered] = 0.9
        lines.append(line_of(number, [true], {"int8": scores.tolist()}, labels))
    return {
        "labels": list(labels),
        "function": "softmax",
        "evaluated": {"int8": measure(lines, "int8", labels, "softmax")},
        "comparisons": [],
    }


def sorted_as_text(number: int) -> int:
    return sorted(range(COUNT), key=str)[number]


def in_alphabetical_order(number: int) -> int:
    return sorted(NAMES).index(NAMES[number])


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (lambda true: (true - 1) % COUNT, "counted from 1"),
        (lambda true: (true + 1) % COUNT, "counted from 0"),
        (sorted_as_text, "sorted as text"),
        (in_alphabetical_order, "alphabetical"),
        (lambda true: (5 * true + 3) % COUNT, "in another order"),
    ],
)
def test_permuted_labels(answer: Callable[[int], int], name: str) -> None:
    pairs = [(true, answer(true)) for true in range(COUNT) for _ in range(4)]
    pairs += [(0, 0), (1, 1)]
    (advice,) = advise(metrics_of(pairs))
    assert name in advice
    assert "id2label" in advice


def test_chance() -> None:
    random = np.random.default_rng(3)
    true, answered = random.integers(0, COUNT, (2, 60))
    (advice,) = advise(metrics_of([*zip(true.tolist(), answered.tolist(), strict=True)]))
    for word in ("by chance (8.3 %)", "channel_order", "image_mean", "protocol", "id2label"):
        assert word in advice
    first, second = advise(metrics_of([(int(label), 7) for label in true]))
    assert "by chance" in first
    assert "answers label j for 60 of 60 videos" in second


def test_no_advice_where_there_is_no_need() -> None:
    answers = [
        (true, (true + (number == 3)) % COUNT) for true in range(COUNT) for number in range(4)
    ]
    assert advise(metrics_of(answers)) == []
    assert advise(metrics_of([(0, 1), (1, 0)])) == []  # too few videos
    assert best_order([[0, 0, 5], [1, 1, 5]], ("a", "b")) is None


def test_a_sentence_of_one_model() -> None:
    metrics = metrics_of([(0, 0)] * 3 + [(1, 0)])
    # Wilson's interval of 3 of 4: 30.1 to 95.4 %
    assert sentence(metrics) == "int8 names 75.0 % right (95 %: 30.1 to 95.4), on 4 videos"


@pytest.mark.parametrize(
    ("difference", "interval", "expected"),
    [
        (-0.002, [-0.007, 0.003], "int8 loses 0.2 points of 81.4 % (95 %: -0.3 to 0.7)"),
        (0.01, [-0.003, 0.02], "int8 gains 1.0 points of 81.4 % (95 %: -0.3 to 2.0)"),
        (
            0.0,
            [-0.01, 0.02],
            "int8 is as accurate as fp32, 81.4 % (95 % of the difference: -2.0 to 1.0 points)",
        ),
    ],
)
def test_a_sentence_of_two_models(difference: float, interval: list[float], expected: str) -> None:
    metrics = metrics_of([(0, 0)])
    metrics["evaluated"]["int8"]["videos"] |= {"total": 1203, "readable": 1200, "unreadable": 3}
    metrics["comparisons"] = [
        {
            "first": "fp32",
            "second": "int8",
            "first_accuracy": {"value": 0.814},
            "difference": {"value": difference, "interval": interval},
        }
    ]
    assert sentence(metrics) == f"{expected}, on 1,203 videos, 3 unreadable"


@pytest.mark.parametrize("videos", [20, 60, 300])
def test_orders_that_chance_explains_do_not_count(videos: int) -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        true, answered = random.integers(0, COUNT, (2, videos)).tolist()
        order = best_order([[*pair, 1] for pair in zip(true, answered, strict=True)], NAMES)
        assert order is None or order.name != "labels in another order"


# --- Diagnosis -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ten videos whose colours decide the answer of a tiny model."""
    folder = tmp_path_factory.mktemp("videos")
    paths = []
    for number in range(10):
        frames = moving_frames(8)
        frames[..., 0], frames[..., 2] = 20 * number, 250 - 25 * number
        paths.append(write_video(folder / f"{number}.mp4", frames))
    return paths


def labelled(classifier: VideoClassifier, videos: Sequence[Path]) -> list[Sample]:
    """Samples whose true label is the answer of a model."""
    return [
        Sample(path.name, str(path), (int(np.argmax(classifier.logits(path))),)) for path in videos
    ]


def load(path: Path, **options: Any) -> VideoClassifier:
    return VideoClassifier.from_pretrained(path, device="cpu", threads=1, **options)


def test_diagnosis_finds_the_channel_order(tmp_path: Path, videos: list[Path]) -> None:
    model = write_exported_model(tmp_path / "shots")
    samples = labelled(load(model, views=Views(channel_order="bgr")), videos)
    today = labelled(load(model), videos)
    right = sum(one.true == two.true for one, two in zip(samples, today, strict=True))
    assert right <= 7  # the videos tell the orders apart
    found = diagnose(load(model), samples, LABELS)
    by_name = {trial.name: trial.right for trial in found.trials}
    assert (by_name["as it is"], by_name["channel order bgr"]) == (right, 10)
    assert found.best is not None
    assert "channel_order=bgr" in found.sentence


def test_diagnosis_finds_mean_and_std(tmp_path: Path, videos: list[Path]) -> None:
    right_model = write_exported_model(tmp_path / "right")
    half = {**preprocessor_config(), "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    write_sidecars(right_model, preprocessor=half)
    wrong_model = write_exported_model(tmp_path / "wrong")
    far = {**preprocessor_config(), "image_mean": [0.9, 0.1, 0.9], "image_std": [0.1] * 3}
    write_sidecars(wrong_model, preprocessor=far)
    samples = labelled(load(right_model), videos)
    found = diagnose(load(wrong_model), samples, LABELS)
    by_name = {trial.name: trial for trial in found.trials}
    assert by_name["mean and std 0.5"].right == 10
    assert "image_mean" in by_name["mean and std 0.5"].remedy
    assert not any(
        "0.5" in trial.name for trial in diagnose(load(right_model), samples, LABELS).trials
    )


def test_diagnosis_joins_changes(tmp_path: Path, videos: list[Path]) -> None:
    right_model = write_exported_model(tmp_path / "right")
    half = {**preprocessor_config(), "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    write_sidecars(right_model, preprocessor=half)
    samples = labelled(load(right_model, views=Views(channel_order="bgr")), videos)
    found = diagnose(load(write_exported_model(tmp_path / "wrong")), samples, LABELS)
    assert found.best is not None
    assert found.best.right == 10
    assert set(found.best.name.split(", ")) == {"channel order bgr", "mean and std 0.5"}
    assert "channel_order=bgr" in found.sentence
    assert "image_mean" in found.sentence


def test_diagnosis_of_the_labels(tmp_path: Path, videos: list[Path]) -> None:
    model = write_exported_model(tmp_path / "shots")
    samples = [
        dataclasses.replace(sample, true=((sample.true[0] + 1) % len(LABELS),))
        for sample in labelled(load(model), videos)
    ]
    found = diagnose(load(model), samples, LABELS)
    assert found.trials[-1].right == 10
    assert found.best is found.trials[-1]


def test_diagnosis_needs_a_video(tmp_path: Path) -> None:
    model = write_exported_model(tmp_path / "shots")
    with pytest.raises(InvalidOptionError, match="none of 1 videos can be read"):
        diagnose(load(model), [Sample("a.mp4", "/no/a.mp4", (0,))], LABELS)
