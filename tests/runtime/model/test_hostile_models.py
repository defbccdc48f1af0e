"""Models that claim more than there can be, never end, or say what is not text: a line for each."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from timesformer_runtime import (
    DecodeLimits,
    InferenceTimeoutError,
    InvalidModelError,
    InvalidOptionError,
    MissingOutputError,
    NotEnoughMemoryError,
    TimesformerError,
    VideoClassifier,
    VideoLimitError,
    Views,
)
from timesformer_runtime.model.golden import GENERATOR
from timesformer_runtime.model.session import Session

from tests.patience import PATIENCE
from tests.tiny_graphs import (
    FRAMES,
    SIZE,
    TinyGraph,
    model_config,
    moving_frames,
    own_metadata,
    preprocessor_config,
    write_video,
)

LONGEST_MESSAGE = 1000  # characters
FRAMES_OF_A_VIDEO = moving_frames(8)


def load(model: onnx.ModelProto | bytes, **options: Any) -> VideoClassifier:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return VideoClassifier.from_pretrained(data, device="cpu", threads=1, **options)


def refusal(use: Callable[[], object], error: type[TimesformerError] = InvalidModelError) -> str:
    with pytest.raises(error) as caught:
        use()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < LONGEST_MESSAGE
    return message


def any_frames(graph: TinyGraph) -> onnx.ModelProto:
    """The graph, with weights that go with any number of frames."""
    model = graph.proto()
    (weights,) = (item for item in model.graph.initializer if item.name == "frame_weights")
    weights.CopyFrom(numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), weights.name))
    return model


# --- Sizes that are announced --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "config", "message"),
    [
        (10_000_000, {}, "it takes 10000000 frames; it must be 1 to 8192"),
        (1 << 62, {}, "frames; it must be 1 to 8192"),
        ("t", {"num_frames": 10_000_000}, "is 10000000: set it there, from 1 to 8192"),
        ("t", {"num_frames": 10**4000}, "is inf: set it there, from 1 to 8192"),
    ],
)
@pytest.mark.parametrize("takes_frames", [True, False])
def test_frames_of_a_clip(
    frames: int | str, config: dict[str, Any], message: str, takes_frames: bool
) -> None:
    graph = TinyGraph(
        shape=("b", frames, "h", "w", 3) if takes_frames else ("b", frames, 3, SIZE, SIZE),
        input_type=TensorProto.UINT8 if takes_frames else TensorProto.FLOAT,
        metadata=own_metadata(config=model_config(**config)),
    )
    assert message in refusal(lambda: load(any_frames(graph)))


@pytest.mark.parametrize("is_open", [True, False])
def test_bytes_of_a_clip(is_open: bool) -> None:
    side = 4096
    graph = TinyGraph(
        shape=("b", 64, 3, "h", "w") if is_open else ("b", 64, 3, side, side),
        metadata=own_metadata(preprocessor_config=preprocessor_config(side)),
    )
    message = refusal(lambda: load(any_frames(graph)))
    assert "a clip of 64 frames of 4096x4096 pixels would take more than 2048 MB" in message


def test_frames_that_stand_in_for_others_count() -> None:
    """A video of one frame fills the whole input of a graph that takes frames."""
    graph = TinyGraph(
        shape=("b", 8000, "h", "w", 3), input_type=TensorProto.UINT8, metadata=own_metadata()
    )
    video = np.zeros((1, 720, 1280, 3), np.uint8)
    message = refusal(lambda: load(any_frames(graph))(video), VideoLimitError)
    assert "the model's input takes 22118400000 bytes for a clip of 8000 frames" in message
    graph = TinyGraph(
        shape=("b", FRAMES, "h", "w", 3), input_type=TensorProto.UINT8, metadata=own_metadata()
    )
    few = DecodeLimits(max_bytes=3 * 720 * 1280 * 3)
    assert "raise `max_bytes`" in refusal(
        lambda: load(any_frames(graph), limits=few)(video), VideoLimitError
    )
    assert load(any_frames(graph))(video)


def test_an_input_whose_size_depends_on_the_video() -> None:
    whole = {**preprocessor_config(), "do_center_crop": False, "do_resize": False}
    graph = TinyGraph(
        shape=("b", 4000, 3, "h", "w"), metadata=own_metadata(preprocessor_config=whole)
    )
    video = np.zeros((1, 480, 640, 3), np.uint8)
    message = refusal(lambda: load(any_frames(graph))(video), VideoLimitError)
    assert "takes 14745600000 bytes for a clip of 4000 frames" in message


@pytest.mark.parametrize("shape", [[64, 2048, 2048, 3], [1, 8192, 8192, 3], [9000, 1, 1, 3]])
def test_golden_frames(shape: list[int]) -> None:
    golden = {"generator": GENERATOR, "seed": 0, "shape": shape, "output": "logits"}
    metadata = own_metadata(golden={**golden, "values": [1.0]})
    message = refusal(lambda: load(TinyGraph(metadata=metadata).proto()))
    assert "which take too much memory" in message


def with_output(
    length: int | str | None, name: str = "logits", limit: float = 1e9
) -> onnx.ModelProto:
    """Gives those logits that are above the limit: how many there are depends on the video."""
    model = TinyGraph(metadata=own_metadata(config=model_config(id2label=None))).proto()
    model.graph.node[-1].output[0] = "all"
    del model.graph.output[:]
    info = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", length])
    model.graph.output.append(info)
    model.graph.node.extend(
        [
            helper.make_node("Greater", ["all", "limit"], ["above"]),
            helper.make_node("Flatten", ["above"], ["row"], axis=0),
            helper.make_node("Squeeze", ["row", "first"], ["chosen"]),
            helper.make_node("Compress", ["all", "chosen"], [name], axis=1),
        ]
    )
    for key, value in (("limit", np.float32(limit)), ("first", np.array([0]))):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), key))
    return model


@pytest.mark.parametrize("length", [0, 1_000_000_000, 1 << 62])
@pytest.mark.parametrize("name", ["logits", "features"])
def test_values_of_an_answer(length: int, name: str) -> None:
    message = refusal(lambda: load(with_output(length, name)))
    assert f"its {name} have {length} values; it must be 1 to 1000000" in message


@pytest.mark.parametrize("length", [None, "classes"])
def test_an_answer_without_values(length: str | None) -> None:
    classifier = load(with_output(length))
    assert "logits are [1, 0] for one clip; they must be [1, n]" in refusal(
        lambda: classifier(FRAMES_OF_A_VIDEO)
    )
    assert len(load(with_output(length, limit=-1e9))(FRAMES_OF_A_VIDEO)) == FRAMES


@pytest.mark.parametrize("name", ["logits", "features"])
def test_values_of_an_answer_whose_length_is_open(name: str) -> None:
    model = with_output(None, name)
    model.graph.node.remove(model.graph.node[-1])
    model.graph.node.extend(
        [  # The zero comes from the video, so that nothing knows the length before the run.
            helper.make_node("Cast", ["above"], ["zeros"], to=TensorProto.INT64),
            helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
            helper.make_node("Add", ["most", "zero"], ["shape"]),
            helper.make_node("Expand", ["one", "shape"], [name]),
        ]
    )
    for key, value in (("most", np.array([1, 1_000_001])), ("one", np.ones((1, 1), np.float32))):
        model.graph.initializer.append(numpy_helper.from_array(value, key))
    classifier = load(model)
    message = refusal(lambda: classifier.classify(FRAMES_OF_A_VIDEO, outputs=[name]))
    assert f"its {name} have 1000001 values; it must be 1 to 1000000" in message


def greedy(*_arguments: Any, **_options: Any) -> Any:
    return bytearray(1 << 60)


def test_too_little_memory_says_for_what(monkeypatch: pytest.MonkeyPatch) -> None:
    model = TinyGraph(metadata=own_metadata()).proto()
    classifier = load(model)
    monkeypatch.setattr(Session, "run", greedy)
    message = refusal(lambda: classifier(FRAMES_OF_A_VIDEO), NotEnoughMemoryError)
    assert message.startswith("there is not enough memory for a run of the model's bytes; end")
    monkeypatch.setattr(Session, "_start", greedy)
    message = refusal(lambda: load(model), NotEnoughMemoryError)
    assert message.startswith("there is not enough memory for loading the model's bytes; end")


# --- What takes too long -------------------------------------------------------------------------


def endless() -> onnx.ModelProto:
    """The tiny graph behind a loop that never ends."""
    model = TinyGraph(metadata=own_metadata()).proto()
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Add", ["value", "one"], ["more"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(np.float32(1), "one")],
    )
    loop = helper.make_node("Loop", ["", "true", "pixel_values"], ["looped"], body=body)
    model.graph.node[0].input[0] = "looped"
    model.graph.node.insert(0, loop)
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "true"))
    return model


ONE_SECOND = DecodeLimits(max_seconds=1)


def test_a_model_that_never_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    classifier = load(endless(), limits=ONE_SECOND)
    message = refusal(lambda: classifier(FRAMES_OF_A_VIDEO), InferenceTimeoutError)
    assert "one run of the model is not done after" in message
    assert "allow more with `max_seconds`" in message
    (outcome,) = classifier.batch([FRAMES_OF_A_VIDEO])
    assert isinstance(outcome.error, InferenceTimeoutError)
    video = write_video(tmp_path / "video.mp4", FRAMES_OF_A_VIDEO)
    refusal(lambda: list(classifier.timeline(video, 0.5, 0.5)), InferenceTimeoutError)
    refusal(lambda: list(classifier.stream(video, window=0.5, stride=0.5)), InferenceTimeoutError)
    monkeypatch.setattr("timesformer_runtime.video.limits._USUAL_TIME", 0.5)
    by_default = load(endless())
    refusal(lambda: by_default(FRAMES_OF_A_VIDEO), InferenceTimeoutError)
    refusal(lambda: list(by_default.timeline(video, 0.5, 0.5)), InferenceTimeoutError)


def test_the_command_ends_with_one_line(tmp_path: Path) -> None:
    model, video = tmp_path / "model.onnx", write_video(tmp_path / "v.mp4", FRAMES_OF_A_VIDEO)
    onnx.save(endless(), model)
    command = ["classify", str(model), str(video), "--max-seconds", "1", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "timesformer_runtime", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 2
    (_, line) = done.stderr.splitlines()
    assert line.startswith(f"timesformer: {video}: {model}: one run of the model is not done after")


def test_time_is_counted_over_all_runs_of_a_video(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a limit is given; by default each run has its own."""
    given: list[float] = []
    run = Session.run

    def slow(self: Session, outputs: Any, feeds: Any, seconds: float) -> Any:
        given.append(seconds)
        time.sleep(0.05)
        return run(self, outputs, feeds, seconds)

    monkeypatch.setattr(Session, "run", slow)
    model = TinyGraph(metadata=own_metadata()).proto()
    views = Views(crops=3)
    load(model, views=views)(moving_frames(8, 48, 96))
    assert given == [600, 600, 600]
    given.clear()
    load(model, views=views, limits=DecodeLimits(max_seconds=50))(moving_frames(8, 48, 96))
    assert 50 > given[0] >= given[1] + 0.05 >= given[2] + 0.1


def test_the_time_is_over_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DecodeLimits, "run_timer", lambda *_: lambda: -0.25)
    classifier = load(endless(), limits=ONE_SECOND)
    message = refusal(lambda: classifier(FRAMES_OF_A_VIDEO), InferenceTimeoutError)
    assert "one run of the model is not done after 0 seconds" in message


def test_a_graph_that_is_never_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime is told to stop; functions that double keep this one busy for a minute."""
    monkeypatch.setattr("timesformer_runtime.model.session._LOAD_SECONDS", 0.3)
    monkeypatch.setattr("timesformer_runtime.model.graph_file._MOST_NODES", 1 << 40)
    assert "ONNX Runtime is not done with it after 0.3 seconds" in refusal(
        lambda: load(functions(17))
    )


def functions(depth: int, *, rounds: bool = False) -> onnx.ModelProto:
    """The tiny graph with functions that call the one before twice; the last is used."""
    model = TinyGraph(metadata=own_metadata()).proto()
    domain = helper.make_opsetid("own", 1)
    for number in range(depth):
        called, where = (f"f{number - 1}", "own") if number else ("Neg", "")
        if rounds and not number:
            called, where = f"f{depth - 1}", "own"
        nodes = [
            helper.make_node(called, [a], [b], domain=where) for a, b in (("a", "b"), ("b", "c"))
        ]
        opsets = [helper.make_opsetid("", 18), domain]
        model.functions.append(
            helper.make_function("own", f"f{number}", ["a"], ["c"], nodes, opsets)
        )
    model.opset_import.append(domain)
    model.graph.node[0].input[0] = "changed"
    model.graph.node.insert(
        0, helper.make_node(f"f{depth - 1}", ["pixel_values"], ["changed"], domain="own")
    )
    return model


def test_functions_that_double() -> None:
    load(functions(4))  # an even number of negations
    message = refusal(lambda: load(functions(40)))
    assert "with its functions inlined it has 1.1e+12 nodes; at most 100000" in message
    assert "it has endlessly many nodes" in refusal(lambda: load(functions(3, rounds=True)))


def test_functions_inside_of_graphs_count() -> None:
    model = functions(40)
    (call,) = (node for node in model.graph.node if node.domain == "own")
    branch = helper.make_graph([call], "branch", [], [])
    outer = helper.make_node("If", ["b"], ["c"], then_branch=branch, else_branch=branch)
    model.graph.node.remove(call)
    model.graph.node.append(outer)
    assert "2.2e+12 nodes" in refusal(lambda: load(model))


# --- Types and values ----------------------------------------------------------------------------


def with_outputs(*outputs: tuple[onnx.NodeProto, onnx.ValueInfoProto]) -> onnx.ModelProto:
    model = TinyGraph(metadata=own_metadata()).proto()
    del model.graph.output[:]
    for node, info in outputs:
        model.graph.node.append(node)
        model.graph.output.append(info)
    return model


def text(name: str) -> tuple[onnx.NodeProto, onnx.ValueInfoProto]:
    info = helper.make_tensor_value_info(name, TensorProto.STRING, ["batch", 4])
    return helper.make_node("Cast", ["answer"], [name], to=TensorProto.STRING), info


def sequence(name: str) -> tuple[onnx.NodeProto, onnx.ValueInfoProto]:
    info = helper.make_tensor_sequence_value_info(name, TensorProto.FLOAT, ["batch", 4])
    return helper.make_node("SequenceConstruct", ["answer"], [name]), info


def optional(name: str) -> tuple[onnx.NodeProto, onnx.ValueInfoProto]:
    kind = helper.make_optional_type_proto(
        helper.make_tensor_type_proto(TensorProto.FLOAT, ["batch", 4])
    )
    return helper.make_node("Optional", [], [name], type=kind.optional_type.elem_type), (
        helper.make_value_info(name, kind)
    )


def number(name: str) -> tuple[onnx.NodeProto, onnx.ValueInfoProto]:
    info = helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["batch", 4])
    return helper.make_node("Cast", ["answer"], [name], to=TensorProto.DOUBLE), info


@pytest.mark.parametrize("kind", [text, sequence, optional])
def test_outputs_that_are_not_numbers(kind: Any) -> None:
    for name in ("logits_", "features", "other"):
        model = with_outputs(kind(name))
        message = refusal(functools.partial(load, model))
        assert f"its outputs are {name}, a " in message
        assert "a video model gives tensors of numbers" in message
    classifier = load(with_outputs(number("scores"), kind("other")))
    assert classifier.outputs == ("scores",)
    refusal(lambda: classifier.classify(FRAMES_OF_A_VIDEO, outputs=["other"]), MissingOutputError)
    refusal(lambda: load(with_outputs(number("logits_"), kind("features"))))


def scaled(scale: float) -> VideoClassifier:
    """Logits in float64, of which the largest is some times that scale."""
    model = with_outputs(number("answer64"))
    model.graph.node.append(helper.make_node("Mul", ["answer64", "scale"], ["large"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(scale), "scale"))
    model.graph.output[0].name = "large"
    return load(model, views=Views(crops=3, protocol="facebook"))


@pytest.mark.filterwarnings("error")
def test_logits_that_float32_cannot_hold() -> None:
    video = moving_frames(8, 48, 96)
    assert all(np.isfinite(item["score"]) for item in scaled(1e30)(video))
    for scale in (1e300, 1e38):  # each of them, or the sum of three
        assert "logits are not finite" in refusal(functools.partial(scaled(scale), video))


@pytest.mark.parametrize(
    "model",
    [None, 3, bytearray(b"x"), memoryview(b"x"), ["a"]],
    ids=lambda model: type(model).__name__,
)
def test_models_of_another_type(model: Any) -> None:
    message = refusal(lambda: VideoClassifier.from_pretrained(model), InvalidOptionError)
    assert "give a path, a Hub id or an .onnx file's bytes" in message


# --- Texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["key", "value", "input", "output", "dimension"])
def test_texts_that_are_not_utf8(place: str) -> None:
    # onnx writes only UTF-8, so other bytes take the place of "XXXX" afterwards.
    model = TinyGraph(metadata=own_metadata()).proto()
    if place in {"key", "value"}:
        entry = model.metadata_props.add(key="key", value="value")
        setattr(entry, place, "XXXX")
    elif place == "input":
        model.graph.input[0].name = model.graph.node[0].input[0] = "XXXX"
    elif place == "output":
        model.graph.output[0].name = model.graph.node[-1].output[0] = "XXXX"
    else:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "XXXX"
    data = model.SerializeToString().replace(b"XXXX", b"\xff\xfe\x80!")
    refusal(lambda: load(data))


LONG = "long" * 1_000_000


@pytest.mark.parametrize(
    "entries",
    [
        {"timesformer_onnx.format": LONG},
        {"dtype": LONG},
        {"dtype": "int8\x1b[31m"},
        {"dtype": ""},
        {"frame_sampling": {"method": LONG}},
        {"golden": {"generator": LONG}},
        {"golden": {"generator": GENERATOR, "seed": LONG, "shape": [1, 1, 1, 3], "values": [1]}},
        {"golden": {"generator": GENERATOR, "seed": 0, "shape": [LONG] * 4, "values": [1]}},
        {"golden": {"generator": GENERATOR, "seed": 0, "shape": [1, 1, 1, 3], "values": LONG}},
        {"config": model_config(problem_type=LONG)},
        {"config": model_config(problem_type=[[LONG]])},
        {"config": model_config(id2label={LONG: "a"})},
        {"config": model_config(id2label={"0": [LONG]})},
        {"config": model_config(id2label={"0": {"a": LONG}})},
        {"config": model_config(num_channels=LONG), "shape": ("b", FRAMES, "c", SIZE, SIZE)},
        {"config": model_config(num_frames=LONG), "shape": ("b", "t", 3, SIZE, SIZE)},
        {"shape": (LONG, "t", 3, 1, LONG), "config": model_config(num_frames=0)},
        {"shape": (LONG, FRAMES, 3, LONG)},
        {"shape": (LONG, FRAMES, 2, LONG, LONG)},
        {"input_name": LONG, "input_type": TensorProto.DOUBLE},
        {"input_name": "a\nb", "input_type": TensorProto.DOUBLE},
    ],
    ids=lambda entries: str(entries)[:60],
)
def test_long_texts_are_shortened_in_messages(entries: dict[str, Any]) -> None:
    names = ("shape", "input_name", "input_type")
    graph = {name: entries[name] for name in names if name in entries}
    metadata = {name: value for name, value in entries.items() if name not in graph}
    values = {**own_metadata(), **own_metadata(**metadata)}
    refusal(lambda: load(TinyGraph(metadata=values, **graph).proto()))


def test_long_names_of_outputs() -> None:
    info = number(LONG)
    source = json.dumps({"model": LONG})
    classifier = load(with_outputs(number("logits_"), info))
    refusal(lambda: classifier.features(FRAMES_OF_A_VIDEO), MissingOutputError)
    model = TinyGraph(metadata=own_metadata(source=source)).proto()
    refusal(lambda: load(model).features(FRAMES_OF_A_VIDEO), MissingOutputError)


@pytest.mark.parametrize("label", ["\x1b[31m red", "two\nlines", "a\0b", "\u202e"])
@pytest.mark.parametrize(
    "command",
    [
        ["classify"],
        ["classify", "--json"],
        ["timeline"],
        ["timeline", "--json"],
        ["timeline", "--csv"],
        ["stream"],
        ["stream", "--json"],
        ["batch", "--output", "results.jsonl"],
    ],
    ids=" ".join,
)
def test_labels_of_all_kinds(tmp_path: Path, command: list[str], label: str) -> None:
    labels = {str(index): f"{label} {index}" for index in range(4)}
    model = tmp_path / "model.onnx"
    TinyGraph(metadata=own_metadata(config=model_config(id2label=labels))).save(model)
    video = write_video(tmp_path / "v.mp4", FRAMES_OF_A_VIDEO)
    name, *options = command
    done = subprocess.run(
        [sys.executable, "-m", "timesformer_runtime", name, model, video, *options],
        capture_output=True,
        check=False,
        timeout=PATIENCE,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
