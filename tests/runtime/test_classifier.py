"""VideoClassifier by value: graphs whose answers NumPy can work out, and a real TimeSformer."""

from __future__ import annotations

import gc
import importlib.util
import io
import json
import pickle
import shutil
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto
from timesformer_runtime import (
    ClosedError,
    DecodeLimits,
    InvalidModelError,
    InvalidOptionError,
    InvalidVideoError,
    MissingOutputError,
    Sampling,
    VideoClassifier,
    VideoNotFoundError,
    VideoResult,
    Views,
)
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.model.golden import GENERATOR, golden_frames, judge
from timesformer_runtime.results import Ranking

from tests.tiny_graphs import (
    FRAMES,
    LABELS,
    SIZE,
    TinyGraph,
    decode_all,
    expected_features,
    expected_logits,
    model_config,
    moving_frames,
    own_metadata,
    preprocessor_config,
    write_exported_model,
    write_sidecars,
    write_video,
)

PREPROCESSING = Preprocessing.from_dict(preprocessor_config())
SPREAD = [0, 6, 13, 20]  # linspace(0, 20, 4), truncated


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 frames, no two alike."""
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", moving_frames(21))


@pytest.fixture(scope="module")
def classifier() -> VideoClassifier:
    return load(features=True)


def load(
    entries: dict[str, Any] | None = None,
    features: bool = False,
    **options: Any,
) -> VideoClassifier:
    graph = TinyGraph(metadata=own_metadata(**(entries or {})), features=features)
    return VideoClassifier.from_pretrained(
        graph.proto().SerializeToString(), device="cpu", threads=1, **options
    )


def logits_of(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return expected_logits(PREPROCESSING(frames), channel_axis=1)


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.exp(logits) / np.exp(logits).sum())


# --- Videos --------------------------------------------------------------------------------------


def test_a_video_gets_the_labels_of_its_evenly_spread_frames(
    classifier: VideoClassifier, video: Path
) -> None:
    """Worked out apart: PyAV decodes every frame, linspace chooses, NumPy is the model."""
    logits = logits_of(decode_all(video)[SPREAD])
    scores = softmax(logits)
    order = np.argsort(-scores)
    predictions = classifier(video, top_k=3)
    assert [p["label"] for p in predictions] == [LABELS[index] for index in order[:3]]
    np.testing.assert_allclose([p["score"] for p in predictions], scores[order[:3]], rtol=1e-4)
    np.testing.assert_allclose(classifier.logits(video), logits, rtol=1e-4, atol=1e-5)


def test_everything_about_one_video(classifier: VideoClassifier, video: Path) -> None:
    result = classifier.classify(video, outputs=["logits", "features"])
    assert isinstance(result, VideoResult)
    assert result.indices == tuple(SPREAD)
    assert result.times is not None
    assert result.times == pytest.approx([0.0, 0.6, 1.3, 2.0])
    seconds = (result.seconds.decode, result.seconds.preprocess, result.seconds.inference)
    assert all(0 < value < 60 for value in seconds)
    features = expected_features(PREPROCESSING(decode_all(video)[SPREAD]), channel_axis=1)
    np.testing.assert_allclose(result.outputs["features"], features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(classifier.features(video), features, rtol=1e-4, atol=1e-5)
    as_json = json.loads(json.dumps(result.to_dict()))
    assert as_json["frames"]["indices"] == SPREAD
    assert as_json["frames"]["times"] == list(result.times)
    assert (as_json["frames"]["count"], as_json["frames"]["duplicates"]) == (21, 0)
    assert as_json["views"] == {"clips": 1, "crops": ["center"]}
    assert not as_json["damaged"]
    assert as_json["problems"] == []
    assert (as_json["failed_packets"], as_json["truncated"], as_json["interlaced"]) == (
        0,
        False,
        False,
    )
    assert set(as_json["seconds"]) == {"decode", "preprocess", "inference"}
    assert as_json["predictions"] == list(result.predictions)


def test_a_truncated_file_is_marked(classifier: VideoClassifier, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), dtype=np.uint8)
    whole = write_video(tmp_path / "whole.mkv", noise)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    sound, damaged = classifier.classify(whole), classifier.classify(cut)
    assert (sound.damaged, sound.truncated, sound.problems) == (False, False, ())
    assert damaged.damaged
    assert damaged.truncated
    assert any("of the 6.00 seconds that it states" in problem for problem in damaged.problems)
    assert damaged.indices[-1] == damaged.count - 1 < 40
    as_json = json.loads(json.dumps(damaged.to_dict()))
    assert (as_json["damaged"], as_json["truncated"]) == (True, True)
    assert as_json["problems"] == list(damaged.problems)
    assert as_json["frames"]["count"] == damaged.count


def test_paths_and_file_objects_give_the_same(classifier: VideoClassifier, video: Path) -> None:
    expected = classifier(video)
    assert classifier(str(video)) == expected
    with video.open("rb") as file:
        assert classifier(file) == expected
    assert classifier(io.BytesIO(video.read_bytes())) == expected


@pytest.mark.parametrize("count", [FRAMES, 21, 3, 1])
def test_arrays_are_sampled_like_videos(classifier: VideoClassifier, count: int) -> None:
    frames = moving_frames(count)
    chosen = np.linspace(0, count - 1, FRAMES).astype(int)
    np.testing.assert_allclose(
        classifier.logits(frames), logits_of(frames[chosen]), rtol=1e-4, atol=1e-5
    )
    result = classifier.classify(frames)
    assert result.indices == tuple(chosen)
    assert result.times is None
    assert json.loads(json.dumps(result.to_dict()))["frames"]["times"] is None


def test_a_list_gives_a_list(classifier: VideoClassifier, video: Path) -> None:
    frames = moving_frames(9)
    assert classifier([video, frames, str(video)], top_k=2) == [
        classifier(video, top_k=2),
        classifier(frames, top_k=2),
        classifier(video, top_k=2),
    ]
    assert classifier((video,)) == [classifier(video)]
    np.testing.assert_array_equal(
        classifier.logits([video, frames]),
        np.stack([classifier.logits(video), classifier.logits(frames)]),
    )


def test_an_empty_list_gives_an_empty_list(classifier: VideoClassifier) -> None:
    assert classifier([]) == []
    assert classifier.logits([]).shape == (0, 4)
    assert classifier.features([]).shape == (0, 3)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((8, 24, 24, 3), np.float32), "float32"),
        (np.zeros((24, 24, 3), np.uint8), r"\(24, 24, 3\)"),
        (np.zeros((8, 3, 24, 24), np.uint8), r"\(8, 3, 24, 24\)"),
        (np.zeros((0, 24, 24, 3), np.uint8), r"\(0, 24, 24, 3\)"),
        (np.zeros((2, 8, 24, 24, 3), np.uint8), r"\(2, 8, 24, 24, 3\)"),
    ],
)
def test_arrays_that_are_no_video(
    classifier: VideoClassifier, array: npt.NDArray[Any], message: str
) -> None:
    with pytest.raises(InvalidVideoError, match=message):
        classifier(array)


def test_videos_that_are_none(classifier: VideoClassifier, tmp_path: Path) -> None:
    with pytest.raises(VideoNotFoundError, match=r"missing\.mp4"):
        classifier(tmp_path / "missing.mp4")
    frames = list(moving_frames(5))
    message = r"array of shape \(48, 64, 3\): one frame, so that numpy.stack\(frames\) is a video; "
    with pytest.raises(InvalidVideoError, match=message):
        classifier(frames)
    for videos in ([frames], (tuple(frames),)):
        with pytest.raises(InvalidVideoError, match=r"cannot be a (list|tuple); .*numpy\.stack"):
            classifier(videos)
    (outcome,) = classifier.batch([frames])  # type: ignore[list-item]
    assert "numpy.stack(frames)" in str(outcome.error)
    assert classifier(np.stack(frames)) == classifier([np.stack(frames)])[0]
    with pytest.raises(InvalidVideoError, match="folder"):
        classifier(tmp_path)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InvalidVideoError, match=r"text\.mp4"):
        classifier(tmp_path / "text.mp4")
    with pytest.raises(InvalidVideoError, match=r"https://example\.org/clip\.mp4"):
        classifier("https://example.org/clip.mp4")


# --- Scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem_type", "function", "expected"),
    [
        (None, None, "softmax"),
        ("single_label_classification", None, "softmax"),
        ("multi_label_classification", None, "sigmoid"),
        ("regression", None, "none"),
        ("multi_label_classification", "softmax", "softmax"),
        (None, "sigmoid", "sigmoid"),
        (None, "none", "none"),
    ],
)
def test_functions(problem_type: str | None, function: str | None, expected: str) -> None:
    classifier = load({"config": model_config(problem_type=problem_type)})
    frames = moving_frames(FRAMES)
    logits = logits_of(frames)
    scores = {"softmax": softmax(logits), "sigmoid": 1 / (1 + np.exp(-logits)), "none": logits}
    predictions = classifier(frames, top_k=None, function_to_apply=function)
    by_label = {p["label"]: p["score"] for p in predictions}
    np.testing.assert_allclose(
        [by_label[label] for label in LABELS], scores[expected], rtol=1e-4, atol=1e-5
    )
    assert [p["score"] for p in predictions] == sorted(by_label.values(), reverse=True)


def test_scores_do_not_overflow() -> None:
    large = np.array([1e4, -1e4, 0.0], dtype=np.float32)
    with np.errstate(all="raise", under="ignore"):
        for function, expected in (("softmax", [1.0, 0.0, 0.0]), ("sigmoid", [1.0, 0.5, 0.0])):
            ranked = Ranking(function_to_apply=function).predictions(large, ["a", "b", "c"])
            assert sorted((p["score"] for p in ranked), reverse=True) == expected
            assert ranked[0]["label"] == "a"


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
def test_labels_are_ranked_also_where_scores_are_rounded_to_the_same(function: str) -> None:
    logits = np.array([40, -2000, 60, -1000, 900], dtype=np.float32)
    ranked = Ranking(None, function).predictions(logits, ["c", "e", "b", "d", "a"])
    assert [p["label"] for p in ranked] == ["a", "b", "c", "d", "e"]


def test_equal_scores_keep_the_order_of_the_labels() -> None:
    logits = np.array([0.25, 0.5, 0.25], dtype=np.float32)
    ranked = Ranking(function_to_apply="none").predictions(logits, ["a", "b", "c"])
    assert [p["label"] for p in ranked] == ["b", "a", "c"]


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (4, 4), (99, 4), (None, 4)])
def test_top_k(classifier: VideoClassifier, top_k: int | None, count: int) -> None:
    assert len(classifier(moving_frames(FRAMES), top_k=top_k)) == count
    assert len(classifier(moving_frames(FRAMES))) == 4  # 5 by default


@pytest.mark.parametrize("top_k", [0, -1, 2.0, True, "3"])
def test_top_k_that_is_not_valid(classifier: VideoClassifier, top_k: Any) -> None:
    with pytest.raises(InvalidOptionError, match=r"`top_k` is .* must be an integer of at least 1"):
        classifier(moving_frames(FRAMES), top_k=top_k)


def test_function_that_does_not_exist(classifier: VideoClassifier) -> None:
    with pytest.raises(InvalidOptionError, match="'relu'; it must be one of softmax, sigmoid"):
        classifier(moving_frames(FRAMES), function_to_apply="relu")
    with pytest.raises(InvalidOptionError, match="`function_to_apply` is ''"):
        classifier(moving_frames(FRAMES), function_to_apply="")


def test_labels_where_the_graph_leaves_their_number_open() -> None:
    classifier = load({"config": model_config(id2label=None)})
    assert classifier.labels == ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")
    assert {p["label"] for p in classifier(moving_frames(FRAMES))} == set(classifier.labels)


# --- Graphs of all kinds -------------------------------------------------------------------------


def test_half_precision_input() -> None:
    graph = TinyGraph(input_type=TensorProto.FLOAT16, metadata=own_metadata())
    classifier = VideoClassifier.from_pretrained(graph.proto().SerializeToString(), device="cpu")
    frames = moving_frames(FRAMES)
    logits = classifier.logits(frames)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, logits_of(frames), atol=5e-3)


def test_a_graph_that_takes_frames(video: Path) -> None:
    graph = TinyGraph(
        input_name="frames",
        input_type=TensorProto.UINT8,
        shape=("batch", FRAMES, "height", "width", 3),
        metadata=own_metadata(input="frames", preprocessor_config=None),
    )
    classifier = VideoClassifier.from_pretrained(graph.proto().SerializeToString(), device="cpu")
    expected = expected_logits(decode_all(video)[SPREAD], channel_axis=3)
    np.testing.assert_allclose(classifier.logits(video), expected, rtol=1e-4)


def test_logits_that_are_not_finite_are_an_error() -> None:
    graph = TinyGraph(scale=float("nan"), metadata=own_metadata())
    classifier = VideoClassifier.from_pretrained(graph.proto().SerializeToString(), device="cpu")
    with pytest.raises(InvalidModelError, match="logits are not finite; use another `dtype`"):
        classifier(moving_frames(FRAMES))


def test_logits_for_every_frame_are_an_error() -> None:
    """What a space-only model gives when its export forgets to average the frames."""
    model = TinyGraph(metadata=own_metadata()).proto()
    reduce = next(node for node in model.graph.node if node.op_type == "ReduceMean")
    reduce.op_type = "Reshape"  # [1, T, C, h, w] to [T, ...]
    reduce.ClearField("attribute")
    axes = next(array for array in model.graph.initializer if array.name == "axes")
    axes.CopyFrom(_int64("axes", [FRAMES * SIZE * SIZE, 3]))
    classifier = VideoClassifier.from_pretrained(model.SerializeToString(), device="cpu")
    with pytest.raises(InvalidModelError, match=r"logits are \[2304, 4\] for one clip"):
        classifier(moving_frames(FRAMES))


def _int64(name: str, values: list[int]) -> TensorProto:
    from onnx import numpy_helper  # noqa: PLC0415

    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def test_missing_features_name_the_export_command(video: Path) -> None:
    classifier = load()
    with pytest.raises(MissingOutputError) as caught:
        classifier.features(video)
    message = str(caught.value)
    assert "it has no output 'features' (it has logits)" in message
    assert message.endswith("timesformer-export --task feature-extraction --model shots/original")
    with pytest.raises(MissingOutputError, match="feature-extraction"):
        classifier.features([])  # before any work


@pytest.mark.parametrize(
    ("output", "option"),
    [
        ("hidden_states.0", "--output-hidden-states"),
        ("spatial_attentions.1", "--output-attentions"),
        ("attentions.1", "--output-attentions"),
        ("last_hidden_state", "--task feature-extraction"),
    ],
)
def test_other_missing_outputs(classifier: VideoClassifier, output: str, option: str) -> None:
    with pytest.raises(MissingOutputError, match=f"timesformer-export {option} --model"):
        classifier.classify(moving_frames(4), outputs=[output])


@pytest.mark.parametrize("outputs", ["logits", [], (), [5], [["logits"]], 5, None])
def test_outputs_that_are_no_list_of_names(classifier: VideoClassifier, outputs: Any) -> None:
    with pytest.raises(InvalidOptionError, match=r"`outputs` is .*; it must be a list of at least"):
        classifier.classify(moving_frames(4), outputs=outputs)


def test_a_model_without_a_head() -> None:
    graph = TinyGraph(output="features", metadata=own_metadata(task="feature-extraction"))
    classifier = VideoClassifier.from_pretrained(graph.proto().SerializeToString(), device="cpu")
    assert classifier.labels is None
    assert classifier.features(moving_frames(4)).shape == (4,)
    result = classifier.classify(moving_frames(4), outputs=["features"])
    assert result.predictions == ()
    with pytest.raises(MissingOutputError, match="--task video-classification"):
        classifier(moving_frames(4))


def test_what_a_classifier_tells_about_itself(tmp_path: Path) -> None:
    folder = write_exported_model(tmp_path / "shots", ("fp32", "fp16"))
    classifier = VideoClassifier.from_pretrained(folder, device="cpu", threads=2, dtype="fp16")
    assert classifier.name == str(folder)
    assert (classifier.dtype, classifier.device, classifier.device_reason) == ("fp16", "cpu", "")
    assert classifier.providers == ("CPUExecutionProvider",)
    assert (classifier.threads, classifier.num_frames) == (2, FRAMES)
    assert classifier.labels == LABELS
    assert classifier.outputs == ("logits",)
    assert VideoClassifier.from_pretrained(folder).device_reason != ""  # auto says why


def test_a_fingerprint_tells_models_of_one_name_apart(tmp_path: Path) -> None:
    def fingerprint(scale: float = 1.0, mean: float = 0.5, first_label: str = "none") -> str:
        path = TinyGraph(scale=scale).save(tmp_path / "model.onnx")
        labels = {str(index): label for index, label in enumerate([first_label, *LABELS[1:]])}
        preprocessor = {**preprocessor_config(), "image_mean": [mean] * 3}
        write_sidecars(tmp_path, model_config(id2label=labels), preprocessor)
        return VideoClassifier.from_pretrained(path, device="cpu").fingerprint()

    assert fingerprint() == fingerprint()
    changed = [fingerprint(), fingerprint(2.0), fingerprint(mean=0.4), fingerprint(first_label="a")]
    assert len({*changed}) == 4
    data = TinyGraph(metadata=own_metadata()).save(tmp_path / "own.onnx").read_bytes()
    same = (
        VideoClassifier.from_pretrained(data),
        VideoClassifier.from_pretrained(tmp_path / "own.onnx"),
    )
    assert same[0].fingerprint() == same[1].fingerprint()


def test_a_fingerprint_counts_weights_in_other_files(tmp_path: Path) -> None:
    weights = {"save_as_external_data": True, "size_threshold": 80}
    found = []
    for number, scale in enumerate((1.0, 1.0, 2.0)):
        folder = tmp_path / str(number)
        write_sidecars(folder)
        TinyGraph(scale=scale).save(folder / "model.onnx", **weights, location="w")
        assert (folder / "w").exists()
        found.append(VideoClassifier.from_pretrained(folder, device="cpu").fingerprint())
    first = (tmp_path / "0" / "model.onnx").read_bytes()
    assert first == (tmp_path / "2" / "model.onnx").read_bytes()  # only the other file tells
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("name", ["model.onnx", "w"])
def test_a_fingerprint_is_that_of_the_model_that_was_loaded(tmp_path: Path, name: str) -> None:
    write_sidecars(tmp_path)
    TinyGraph().save(
        tmp_path / "model.onnx", save_as_external_data=True, size_threshold=80, location="w"
    )
    classifier = VideoClassifier.from_pretrained(tmp_path, device="cpu")
    before = classifier.fingerprint()
    (tmp_path / name).rename(tmp_path / "old")
    shutil.copy(tmp_path / "old", tmp_path / name)
    with pytest.raises(InvalidModelError, match=f"{name}: it was replaced after it was loaded"):
        classifier.fingerprint()
    assert VideoClassifier.from_pretrained(tmp_path, device="cpu").fingerprint() == before


# --- Processes and threads -----------------------------------------------------------------------


def test_pickles_by_its_configuration(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_exported_model(tmp_path / "shots", ("fp32", "fp16"))
    monkeypatch.chdir(tmp_path)
    classifier = VideoClassifier.from_pretrained("shots", device="cpu", threads=1, dtype="fp16")
    monkeypatch.chdir("/")  # a worker's working directory is another one
    copy = pickle.loads(pickle.dumps(classifier))
    assert isinstance(copy, VideoClassifier)
    assert copy is not classifier
    assert (copy.dtype, copy.threads, copy.device) == ("fp16", 1, "cpu")
    assert copy(video) == classifier(video)


def test_pickles_with_the_options_with_which_it_was_loaded() -> None:
    options = {"enable_cpu_mem_arena": "0"}
    classifier = load(session_options=options)
    options.clear()
    classifier.arguments["session_options"].clear()
    copy = pickle.loads(pickle.dumps(classifier))
    assert copy.arguments["session_options"] == {"enable_cpu_mem_arena": "0"}


def test_pickles_with_bytes(classifier: VideoClassifier) -> None:
    copy = pickle.loads(pickle.dumps(classifier))
    frames = moving_frames(FRAMES)
    np.testing.assert_array_equal(copy.logits(frames), classifier.logits(frames))


def test_threads_may_share_a_classifier(classifier: VideoClassifier, video: Path) -> None:
    clips: list[Any] = [video, *(moving_frames(count) for count in range(4, 11))]
    expected = [classifier(clip) for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(classifier, clips * 4)) == expected * 4


# --- Closing -------------------------------------------------------------------------------------


def test_closing_frees_the_model(video: Path) -> None:
    with load() as classifier:
        assert classifier(video)
        session = weakref.ref(classifier.model.session._session)
    gc.collect()
    assert session() is None
    classifier.close()  # once more does nothing


def enter(classifier: VideoClassifier) -> None:
    with classifier:
        pass


@pytest.mark.parametrize(
    "use",
    [
        lambda classifier, video: classifier(video),
        lambda classifier, _: classifier(moving_frames(FRAMES)),
        lambda classifier, video: classifier.classify(video, outputs=["logits"]),
        lambda classifier, video: classifier.logits([video]),
        lambda classifier, video: list(classifier.batch([video])),
        lambda classifier, video: list(classifier.timeline(video)),
        lambda classifier, video: list(classifier.stream(video)),
        lambda classifier, video: classifier.read(video),
        lambda classifier, _: classifier.verify(),
        lambda classifier, _: enter(classifier),
    ],
)
@pytest.mark.parametrize("isolated", [False, True])
def test_use_after_close_is_one_error(
    video: Path, use: Callable[[VideoClassifier, Path], object], isolated: bool
) -> None:
    if isolated and sys.platform != "linux":
        pytest.skip("isolated needs Linux")
    entries = {"golden": golden(golden_logits())}
    classifier = load(entries, limits=DecodeLimits(isolated=isolated))
    classifier.close()
    with pytest.raises(ClosedError, match="closed; load it again"):
        use(classifier, video)
    assert pickle.loads(pickle.dumps(classifier))(video)  # loaded again


@pytest.mark.parametrize("kind", ["batch", "timeline", "stream"])
def test_closing_while_results_are_awaited(video: Path, kind: str) -> None:
    classifier = load()
    begun: dict[str, Iterator[Any]] = {
        "batch": classifier.batch([video] * 50, workers=1),
        "timeline": classifier.timeline(video, 0.2, 0.02),
        "stream": classifier.stream(video, window=0.2, stride=0.02),
    }
    results = begun[kind]
    next(results)
    classifier.close()
    with pytest.raises(ClosedError):
        list(results)
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(kind)]


def test_a_run_that_goes_on_while_it_is_closed_gives_its_result() -> None:
    classifier = load()
    frames = moving_frames(FRAMES)
    expected = classifier(frames)
    session = classifier.model.session
    real, begun, closed = session._session, threading.Event(), threading.Event()

    class Slow:
        def run(self, *arguments: Any) -> Any:
            begun.set()
            closed.wait()
            return real.run(*arguments)

    session._session = Slow()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(classifier, frames)
        begun.wait()
        classifier.close()
        closed.set()
        assert answer.result() == expected


# --- The golden check ----------------------------------------------------------------------------


def golden(values: npt.NDArray[Any], output: str = "logits", seed: int = 7) -> dict[str, Any]:
    return {
        "generator": GENERATOR,
        "seed": seed,
        "shape": [FRAMES, SIZE, SIZE, 3],
        "output": output,
        "values": [float(value) for value in values],
    }


def golden_logits(seed: int = 7) -> npt.NDArray[np.float64]:
    return logits_of(golden_frames(seed, (FRAMES, SIZE, SIZE, 3)))


def test_verify_passes_on_the_right_answer() -> None:
    check = load({"golden": golden(golden_logits())}).verify()
    assert check.passed
    assert check.top1_agrees
    assert check.output == "logits"
    assert check.max_abs < 1e-5
    assert check.cosine == pytest.approx(1.0, abs=1e-9)


def test_verify_fails_on_another_answer() -> None:
    wrong = golden_logits()
    wrong[1] += 0.02 * np.abs(wrong).max()
    check = load({"golden": golden(wrong)}).verify()
    assert not check.passed
    assert check.relative == pytest.approx(0.02, rel=0.05)
    assert not load({"golden": golden(golden_logits(seed=8))}).verify().passed


def test_verify_of_reduced_precision_looks_at_the_direction() -> None:
    close = golden_logits() + 0.02 * np.abs(golden_logits()).max() * np.array([1, -1, 1, -1])
    assert not load({"golden": golden(close)}).verify().passed
    check = load({"golden": golden(close), "dtype": "int8"}).verify()
    assert check.passed
    assert check.limit == "cosine at least 0.98"
    assert not load({"golden": golden(-close), "dtype": "int8"}).verify().passed


def test_verify_needs_a_golden_check(classifier: VideoClassifier) -> None:
    with pytest.raises(
        InvalidModelError, match="has no golden check; only timesformer-export writes one"
    ):
        classifier.verify()
    check = load({"golden": golden(np.zeros(2))}).verify()
    assert not check.passed
    assert check.limit == "as many values as PyTorch's 2, not 4"


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1},
        {"output": "nope"},
        {"values": []},
        {"values": [1.0, float("nan")]},
        {"shape": [8, 1_000_000, 1_000_000, 3]},
        {"shape": [1, 2, 3]},
    ],
    ids=str,
)
def test_a_broken_golden_check(change: dict[str, Any]) -> None:
    with pytest.raises(
        InvalidModelError, match="the golden check in the file's metadata is broken"
    ):
        load({"golden": golden(np.zeros(4)) | change})


def test_the_golden_check_by_hand() -> None:
    actual = np.array([3.0, 4.0, 0.0], dtype=np.float32)
    expected = np.array([3.0, 4.0, 0.5], dtype=np.float32)
    check = judge(actual, expected, "logits", exact=True)
    assert check.max_abs == 0.5
    assert check.relative == 0.125
    assert check.cosine == pytest.approx(25 / (5 * np.sqrt(25.25)))
    assert check.limit == "max-abs at most 0.0041"
    assert not check.passed


# --- A real TimeSformer, by the exporter ---------------------------------------------------------


@pytest.fixture(scope="module")
def timesformer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """An exported model with divided attention, and that model in PyTorch."""
    pytest.importorskip("torch")
    from timesformer_exporter.export import export  # noqa: PLC0415
    from timesformer_exporter.options import ExportOptions  # noqa: PLC0415

    from tests.tiny_models import tiny_config, write_checkpoint  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("timesformer")
    config = tiny_config(num_frames=4)
    model = write_checkpoint(
        folder / "checkpoint", config, preprocessing=preprocessor_config(size=32)
    )
    options = ExportOptions(model=str(folder / "checkpoint"), output=folder / "exported")
    export(options, lambda step: None)
    return folder / "exported", model


def test_a_timesformer_answers_as_in_pytorch(timesformer: tuple[Path, Any], video: Path) -> None:
    import torch  # noqa: PLC0415

    folder, model = timesformer
    classifier = VideoClassifier.from_pretrained(folder, device="cpu", threads=1)
    pixel_values = Preprocessing.from_dict(preprocessor_config(size=32))(decode_all(video)[SPREAD])
    with torch.inference_mode():
        expected = model(torch.from_numpy(pixel_values)[None])[0].numpy()
    logits = classifier.logits(video)
    np.testing.assert_allclose(logits, expected, atol=1e-5 + 1e-4 * np.abs(expected).max())
    assert classifier(video, top_k=1)[0]["label"] == f"label {expected.argmax()}"
    assert classifier.verify().passed


@pytest.mark.parametrize("rate", [1, 4])
def test_pipeline_frames_give_what_transformers_pipeline_gives(
    timesformer: tuple[Path, Any], video: Path, rate: int
) -> None:
    transformers = pytest.importorskip("transformers")
    if importlib.util.find_spec("torchvision") is not None:
        pytest.skip("with torchvision, the pipeline has another sampling and ignores the rate")
    folder, _ = timesformer
    views = Views(Sampling("pipeline", rate))
    classifier = VideoClassifier.from_pretrained(folder, device="cpu", threads=1, views=views)
    pipeline = transformers.pipeline("video-classification", str(folder.parent / "checkpoint"))
    expected = pipeline(str(video), frame_sampling_rate=rate, top_k=6)
    predictions = classifier(video, top_k=6)
    assert [p["label"] for p in predictions] == [p["label"] for p in expected]
    np.testing.assert_allclose(
        [p["score"] for p in predictions], [p["score"] for p in expected], rtol=1e-4
    )


def test_the_authors_test_of_a_timesformer(timesformer: tuple[Path, Any], video: Path) -> None:
    """PyTorch's logits for each crop, added up."""
    import torch  # noqa: PLC0415

    folder, model = timesformer
    views = Views.facebook(Sampling("facebook", rate=12))
    classifier = VideoClassifier.from_pretrained(folder, device="cpu", threads=1, views=views)
    config = preprocessor_config(size=32)
    clip = torch.from_numpy(decode_all(video)[[0, 5, 10, 15]]).float() / 255.0
    clip = (clip - torch.tensor(config["image_mean"])) / torch.tensor(config["image_std"])
    clip = clip.permute(0, 3, 1, 2)
    clip = torch.nn.functional.interpolate(clip, size=(32, 42), mode="bilinear")  # of 48x64
    with torch.inference_mode():
        crops = [model(clip[None, ..., left : left + 32])[0].numpy() for left in (0, 5, 10)]
    expected = np.sum(crops, axis=0)
    np.testing.assert_allclose(
        classifier.logits(video), expected, atol=1e-4 + 1e-4 * np.abs(expected).max()
    )


def test_one_exported_file_copied_away(
    timesformer: tuple[Path, Any], video: Path, tmp_path: Path
) -> None:
    folder, _ = timesformer
    graph = folder / "onnx" / "model.onnx"
    alone = tmp_path / "alone.onnx"
    alone.write_bytes(graph.read_bytes())
    expected = VideoClassifier.from_pretrained(folder, device="cpu")(video)
    assert VideoClassifier.from_pretrained(alone, device="cpu")(video) == expected
    assert VideoClassifier.from_pretrained(graph.read_bytes(), device="cpu")(video) == expected
