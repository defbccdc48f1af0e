"""Advice and diagnosis where a model is near chance, or its labels look permuted."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from timesformer_runtime import InvalidOptionError, VideoClassifier, Views
from timesformer_runtime.evaluate import diagnosis
from timesformer_runtime.evaluate.advice import advise
from timesformer_runtime.evaluate.datasets import Sample
from timesformer_runtime.evaluate.diagnosis import Diagnosis, Trial, diagnose
from timesformer_runtime.evaluate.label_orders import FIX_LABELS, best_order
from timesformer_runtime.evaluate.metrics import measure
from timesformer_runtime.evaluate.sentences import sentence
from timesformer_runtime.pipeline import Pipeline

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
    generator = np.random.default_rng(3)
    true, answered = generator.integers(0, COUNT, (2, 60))
    (advice,) = advise(metrics_of([*zip(true.tolist(), answered.tolist(), strict=True)]))
    for word in (
        "by chance (8.3 %)",
        "order (bgr)",
        "image_mean",
        "protocol (facebook)",
        "id2label",
    ):
        assert word in advice
    assert "`" not in advice  # the report shows the sentence as it is
    first, second = advise(metrics_of([(int(label), 7) for label in true]))
    assert "by chance" in first
    assert "answers label j for 60 of 60 videos" in second


def test_little_more_than_chance() -> None:
    """14 % right of 12 labels is clearly more than chance, and as bad."""
    pairs = [(0, 0), (1, 1)] * 10
    generator = np.random.default_rng(5)
    true, answered = generator.integers(0, COUNT, (2, 280)).tolist()
    pairs += [*zip(true, answered, strict=True)]
    metrics = metrics_of(pairs)
    assert metrics["evaluated"]["int8"]["top_1"]["interval"][0] > 1 / COUNT
    (advice,) = advise(metrics)
    assert "little more than by chance (8.3 %)" in advice


def test_swapped_pairs_are_told() -> None:
    """Half of the labels are swapped: half of the answers are right as it is."""
    swapped = [1, 0, 3, 2, 5, 4, *range(6, COUNT)]
    generator = np.random.default_rng(2)
    true, wrong = generator.integers(0, COUNT, (2, 100)).tolist()
    answers = [
        swapped[one] if number % 7 else other
        for number, (one, other) in enumerate(zip(true, wrong, strict=True))
    ]
    (advice,) = advise(metrics_of([*zip(true, answers, strict=True)]))
    assert "in another order" in advice


def test_mediocre_models_get_no_order() -> None:
    for seed in range(100):
        generator = np.random.default_rng(seed)
        true, wrong = generator.integers(0, COUNT, (2, 100))
        right = generator.uniform(size=100) < generator.uniform(0, 0.8)
        pairs = zip(true.tolist(), np.where(right, true, wrong).tolist(), strict=True)
        assert not any(FIX_LABELS in advice for advice in advise(metrics_of([*pairs])))


def test_given_options_are_not_recommended() -> None:
    generator = np.random.default_rng(3)
    true, answered = generator.integers(0, COUNT, (2, 60)).tolist()
    metrics = metrics_of([*zip(true, answered, strict=True)])
    (advice,) = advise(metrics, Views.facebook(channel_order="bgr"))
    assert "facebook" not in advice
    assert "channel order (rgb)" in advice


def test_several_labels_near_chance() -> None:
    generator = np.random.default_rng(4)
    true = generator.uniform(size=(400, 3)) < (0.3, 0.4, 0.5)
    for knows in (False, True):
        lines = []
        for number, wanted in enumerate(true):
            scores = wanted * 1.0 if knows else generator.uniform(size=3)
            lines.append(
                line_of(
                    number,
                    np.flatnonzero(wanted).tolist(),
                    {"int8": scores.tolist()},
                    NAMES[:3],
                    sigmoid=True,
                )
            )
        values = measure(lines, "int8", NAMES[:3], "sigmoid")
        advice = advise({"labels": list(NAMES[:3]), "evaluated": {"int8": values}})
        assert len(advice) == (0 if knows else 1)
        if not knows:
            assert "has a mAP of" in advice[0]
            assert "channel order (bgr)" in advice[0]
            assert "id2label" not in advice[0]


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
        (
            0.01,
            [-0.003, 0.02],
            "int8 names 82.4 % right, 1.0 points more than fp32 (95 %: -0.3 to 2.0)",
        ),
        (
            0.0,
            [-0.01, 0.02],
            "int8 is as accurate as fp32, 81.4 % "
            "(95 % interval of the difference: -2.0 to 1.0 points)",
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
            "videos": 1200,
            "first_accuracy": {"value": 0.814},
            "second_accuracy": {"value": 0.814 + difference},
            "difference": {"value": difference, "interval": interval},
        }
    ]
    assert sentence(metrics) == f"{expected}, on 1,200 of 1,203 videos, 3 unreadable"


def test_a_sentence_of_unread_videos() -> None:
    metrics = metrics_of([(0, 0)] * 8)
    metrics["evaluated"]["int8"]["videos"] |= {"total": 30, "unreadable": 22}
    assert sentence(metrics).endswith("on 8 of 30 videos, 22 unreadable")


def test_a_sentence_of_another_model() -> None:
    metrics = metrics_of([(0, 0)])
    metrics["function"] = "sigmoid"
    metrics["comparisons"] = [
        {
            "first": "old fp32",
            "second": "int8",
            "videos": 1,
            "first_accuracy": {"value": 0.175},
            "second_accuracy": {"value": 0.856},
            "difference": {"value": 0.681, "interval": [0.6, 0.7]},
        }
    ]
    assert sentence(metrics) == (
        "int8 has 85.6 % top-1, 68.1 points more than old fp32 (95 %: 60.0 to 70.0), on 1 video"
    )


def test_orders_that_noise_explains_do_not_count() -> None:
    """Models of any accuracy, whose errors fall anywhere or mostly on one label."""
    for seed in range(200):
        chance = random.Random(seed)
        videos, accuracy = chance.randint(10, 300), chance.random()
        favourites = [chance.randrange(COUNT) for _ in range(COUNT)]  # the usual error of a label
        pairs = []
        for _ in range(videos):
            true, answer = chance.randrange(COUNT), chance.randrange(COUNT)
            if chance.random() < 0.3:
                answer = favourites[true]
            pairs.append((true, true if chance.random() < accuracy else answer))
        assert best_order([[*pair, 1] for pair in pairs], NAMES) is None, (seed, accuracy)


@pytest.mark.parametrize("answer", range(1, COUNT))
@pytest.mark.parametrize("share", [0.7, 1])
def test_one_answer_for_all_videos_is_no_order(answer: int, share: float) -> None:
    """Most videos have one label, and in some order the model's only answer is right for them."""
    pairs = [(0 if number < 50 * share else number % COUNT, answer) for number in range(50)]
    assert best_order([[*pair, 1] for pair in pairs], NAMES) is None
    chance, same_answers = advise(metrics_of(pairs))
    assert "by chance" in chance
    assert f"answers {NAMES[answer]} for 50 of 50 videos" in same_answers


def test_an_order_of_an_imbalanced_set() -> None:
    """The order explains more than the answer for the label that most videos have."""
    pairs = [(true, (true + 1) % COUNT) for true in [0] * 70 + [*range(1, 11)] * 3]
    order = best_order([[*pair, 1] for pair in pairs], NAMES)
    assert order is not None
    assert order.right == 100


def test_swapped_labels_are_an_order() -> None:
    swapped = [1, 0, 3, 2, 5, 4, *range(6, COUNT)]
    pairs = [(true, swapped[true]) for true in range(COUNT) for _ in range(4)]
    order = best_order([[*pair, 1] for pair in pairs], NAMES)
    assert order is not None
    assert (order.places, order.right) == (tuple(swapped), 4 * COUNT)


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


ORDERS = {
    "in reverse order": lambda true: COUNT - 1 - true,
    "counted from 1": lambda true: (true - 1) % COUNT,
    "sorted as text": sorted_as_text,
    "alphabetical": in_alphabetical_order,
    "in another order": lambda true: (5 * true + 3) % COUNT,
}


def diagnosed(
    monkeypatch: pytest.MonkeyPatch,
    model: Path,
    share: Callable[[Pipeline], float],
    order: Callable[[int], int] = lambda true: true,
    **options: Any,
) -> diagnosis.Diagnosis:
    """Diagnoses a model that names a share of 50 videos right, and the others anyhow."""

    def answers(pipeline: Pipeline, *_: Any) -> list[tuple[int, int]]:
        labels, chance = random.Random(0), random.Random(len(repr(pipeline.views)))
        pairs = []
        for number in range(50):
            true, wrong = labels.randrange(COUNT), chance.randrange(COUNT)
            pairs.append((true, order(true if number < 50 * share(pipeline) else wrong)))
        return pairs

    monkeypatch.setattr(diagnosis, "_answers", answers)
    return diagnose(load(model, **options), [Sample("a.mp4", "/a.mp4", (0,))], NAMES)


def wants(pipeline: Pipeline, **right: str) -> float:
    """The share of right answers where each option has its right value, else a small one."""
    return 0.85 if all(getattr(pipeline.views, name) == right[name] for name in right) else 0.2


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_exported_model(tmp_path_factory.mktemp("model") / "shots")


@pytest.mark.parametrize("name", ORDERS)
def test_only_the_order_where_only_the_labels_are_permuted(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, name: str
) -> None:
    found = diagnosed(monkeypatch, tiny, wants, ORDERS[name])
    assert found.best is found.trials[1]
    assert name in found.trials[1].name
    assert found.trials[1].changes == 1
    assert "correct id2label in the checkpoint's config.json and export again" in found.sentence
    assert any(trial.changes == 2 for trial in found.trials)  # 85 % leave room for other changes


def test_a_change_must_be_clearly_better(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    def share(pipeline: Pipeline) -> float:
        return 0.9 if pipeline.views.channel_order == "bgr" else 0.85

    found = diagnosed(monkeypatch, tiny, share)
    assert found.trials[1].name == "channel order bgr"
    assert [trial.right for trial in found.trials[:2]] == [44, 46]
    assert found.best is None
    assert "nothing that was tried is clearly better" in found.sentence
    labels_too = diagnosed(monkeypatch, tiny, share, ORDERS["counted from 1"])
    assert labels_too.best is labels_too.trials[1]


def test_noise_is_no_reason_for_a_change() -> None:
    """Eight trials redraw a share of the answers, and none is truly better."""
    for redrawn in (0.1, 0.2, 0.4):
        recommended = 0
        for seed in range(500):
            chance = random.Random(seed)
            videos, accuracy = chance.choice([20, 30, 50]), chance.uniform(0.1, 0.9)
            today = [chance.random() < accuracy for _ in range(videos)]
            trials = [Trial("as it is", tuple(today))]
            for number in range(8):
                outcomes = tuple(
                    chance.random() < accuracy if chance.random() < redrawn else right
                    for right in today
                )
                trials.append(Trial(str(number), outcomes, changes=1))
            recommended += Diagnosis(videos, tuple(trials)).best is not None
        assert recommended <= 15, redrawn  # 3 %


def test_a_trial_is_compared_video_by_video() -> None:
    """Ten more videos are right: alone, that is clear, but not where many others changed too."""
    first = Trial("as it is", (True,) * 20 + (False,) * 30)
    alone = Trial("other", (True,) * 30 + (False,) * 20, changes=1)
    many = Trial("other", (False,) * 20 + (True,) * 30, changes=1)
    cannot = Trial("other", None, changes=1)
    assert Diagnosis(50, (first, alone)).best is alone
    assert Diagnosis(50, (first, many)).best is None
    assert Diagnosis(50, (first, cannot)).best is None


def test_answers_are_in_the_order_of_the_videos(tiny: Path, videos: list[Path]) -> None:
    classifier = load(tiny)
    samples = labelled(classifier, videos)
    samples.insert(3, Sample("gone.mp4", "/gone.mp4", (0,)))
    answers = diagnosis._answers(classifier, samples, 3)
    expected = [(sample.true[0], sample.true[0]) for sample in samples]
    assert answers == [*expected[:3], None, *expected[4:]]


def test_a_right_model_needs_no_trials(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    found = diagnosed(monkeypatch, tiny, lambda _pipeline: 0.96)
    assert [trial.name for trial in found.trials] == ["as it is"]


def test_diagnosis_joins_changes(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    def share(pipeline: Pipeline) -> float:
        preprocessing = pipeline.model.preprocessing
        if preprocessing is None or preprocessing.image_mean != (0.5, 0.5, 0.5):
            return 0.2
        return 0.85 if pipeline.views.channel_order == "bgr" else 0.5

    found = diagnosed(monkeypatch, tiny, share)
    assert found.best is not None
    assert found.best.name == "mean and std 0.5, channel order bgr"
    assert found.best.changes == 2
    assert "checkpoint's preprocessor_config.json and export again" in found.sentence
    assert "channel_order=bgr" in found.sentence


def test_a_change_and_an_order_together(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    found = diagnosed(
        monkeypatch,
        tiny,
        lambda pipeline: wants(pipeline, channel_order="bgr"),
        ORDERS["counted from 1"],
    )
    assert found.best is not None
    assert found.best.name == "channel order bgr, labels counted from 1, not from 0"
    assert "channel_order=bgr" in found.best.remedy
    alone = diagnosed(monkeypatch, tiny, lambda pipeline: wants(pipeline, channel_order="bgr"))
    assert alone.best is not None
    assert alone.best.name == "channel order bgr"


def test_diagnosis_needs_a_video(tmp_path: Path) -> None:
    model = write_exported_model(tmp_path / "shots")
    with pytest.raises(InvalidOptionError, match="none of 1 videos can be read"):
        diagnose(load(model), [Sample("a.mp4", "/no/a.mp4", (0,))], LABELS)
