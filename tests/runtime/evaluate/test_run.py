"""Evaluations of tiny models, whose answers NumPy computes."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from timesformer_runtime import InvalidOptionError, Views
from timesformer_runtime.errors import OutputError, TimesformerError
from timesformer_runtime.evaluate import evaluate
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.input.sampling import uniform
from timesformer_runtime.model.session import Session
from timesformer_runtime.pipeline import Pipeline

from tests.tiny_graphs import (
    FRAMES,
    LABELS,
    TinyGraph,
    decode_all,
    expected_logits,
    model_config,
    moving_frames,
    preprocessor_config,
    write_exported_model,
    write_sidecars,
    write_video,
)
from tests.video_files import damage

VIDEOS = 6
OPTIONS: dict[str, Any] = {"device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos ``0.mp4`` to ``5.mp4`` whose answers differ, a damaged and a broken one."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(VIDEOS):
        frames = moving_frames(8 + 5 * number)
        frames[..., number % 3] = 255 - 40 * number
        write_video(folder / f"{number}.mp4", frames)
    (folder / "broken.mp4").write_text("no video")
    damage(write_video(folder / "bad.mp4", moving_frames(80)))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_exported_model(tmp_path_factory.mktemp("model") / "shots", ("fp32", "int8"))


def logits_of(
    video: Path, scale: float = 1.0, preprocessor: dict[str, Any] | None = None
) -> npt.NDArray[np.float64]:
    """The answer of a tiny model of ``write_exported_model``, computed with PyAV and NumPy."""
    frames = decode_all(video)
    clip = frames[uniform(len(frames), FRAMES)]
    pixels = Preprocessing.from_dict(preprocessor or preprocessor_config())(clip)
    bias = expected_logits(np.zeros_like(pixels), 1)
    return bias + scale * (expected_logits(pixels, 1) - bias)


def write_list(folder: Path, videos: Path, labels: dict[str, object]) -> Path:
    path = folder / "list.txt"
    path.write_text("".join(f"{videos / name} {label}\n" for name, label in labels.items()))
    return path


@pytest.fixture
def data(tmp_path: Path, videos: Path) -> Path:
    """A list in which videos 0 to 3 have their best label, and 4 and 5 their worst one."""
    labels: dict[str, object] = {}
    for number in range(VIDEOS):
        order = np.argsort(-logits_of(videos / f"{number}.mp4"))
        labels[f"{number}.mp4"] = order[0] if number < 4 else order[-1]
    return write_list(tmp_path, videos, labels)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_every_number_of_a_line(tmp_path: Path, videos: Path, model: Path, data: Path) -> None:
    output = tmp_path / "out"
    evaluate(model, data, output, dtypes=["fp32", "int8"], **OPTIONS)
    description, *found = lines(output)
    assert (description["labels_count"], description["function"]) == (len(LABELS), "softmax")
    assert set(description["models"]) == {"fp32", "int8"}
    assert len(found) == VIDEOS
    for line in found:
        path = Path(line["path"])
        assert (line["file"], path.parent) == (str(path), videos)
        count = len(decode_all(path))
        assert line["frames"] == uniform(count, FRAMES).tolist()
        assert line["times"] == pytest.approx([index / 10 for index in line["frames"]])
        for dtype, scale in (("fp32", 1.0), ("int8", 2.0)):
            logits = logits_of(path, scale)
            scores = np.exp(logits) / np.exp(logits).sum()
            order = np.argsort(-logits)
            result = line["results"][dtype]
            assert [label for label, _ in result["top"]] == [LABELS[i] for i in order]
            assert [score for _, score in result["top"]] == pytest.approx(scores[order], abs=1e-5)
            true = LABELS.index(line["true_labels"][0])
            ((score, rank),) = result["true"]
            assert score == pytest.approx(scores[true], abs=1e-5)
            assert rank == 1 + order.tolist().index(true)
            assert result["log_probability"] == pytest.approx([math.log(scores[true])], abs=1e-4)


def test_metrics_and_sentence(tmp_path: Path, videos: Path, model: Path, data: Path) -> None:
    with data.open("a") as file:
        file.write(f"{videos}/missing.mp4 0\n{videos}/broken.mp4 1\n")
    done = evaluate(model, data, tmp_path / "out", dtypes=["fp32", "int8"], **OPTIONS)
    values = done.metrics["evaluated"]["fp32"]
    assert values["videos"]["total"] == VIDEOS + 2
    assert values["videos"]["unreadable"] == 2
    assert (values["top_1"]["count"], values["top_1"]["of"]) == (4, VIDEOS)
    assert values["top_1"]["unreadable_as_wrong"]["of"] == VIDEOS + 2
    assert values["memory_bytes"] > 1 << 20
    assert values["seconds_per_video"] > 0
    (comparison,) = done.metrics["comparisons"]
    assert (comparison["first"], comparison["second"]) == ("fp32", "int8")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == done.metrics
    assert "<html" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert done.sentence.endswith("on 6 of 8 videos, 2 unreadable")
    errors = {
        Path(line["path"]).name: line["error"] for line in lines(done.folder)[1:] if "error" in line
    }
    assert set(errors) == {"missing.mp4", "broken.mp4"}
    assert done.unreadable == 2


def test_the_scale_of_a_model_does_not_change_its_order(
    tmp_path: Path, model: Path, data: Path
) -> None:
    """Variants of different scales have bias and weights in other proportions: labels differ."""
    done = evaluate(model, data, tmp_path / "out", dtypes=["int8"], **OPTIONS)
    right = 0
    for line in data.read_text().splitlines():
        path, _, label = line.rpartition(" ")
        right += int(np.argmax(logits_of(Path(path), 2.0))) == int(label)
    assert done.metrics["evaluated"]["int8"]["top_1"]["count"] == right


def test_each_video_is_decoded_once(
    tmp_path: Path, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = Pipeline.read

    def counting(self: Pipeline, video: Any, *args: Any, **options: Any) -> Any:
        read.append(str(video))
        return original(self, video, *args, **options)

    monkeypatch.setattr(Pipeline, "read", counting)
    monkeypatch.setattr("timesformer_runtime.evaluate.run.write_report", lambda *_: None)
    evaluate(model, data, tmp_path / "out", dtypes=["fp32", "int8"], **OPTIONS)
    assert len(read) == len(set(read)) == VIDEOS


def test_a_damaged_video_is_counted_and_told(tmp_path: Path, videos: Path, model: Path) -> None:
    data = write_list(tmp_path, videos, {"bad.mp4": 0, "0.mp4": 0})
    evaluate(model, data, tmp_path / "out", **OPTIONS)
    found = {Path(line["path"]).name: line for line in lines(tmp_path / "out")[1:]}
    assert found["bad.mp4"].get("problems") or found["bad.mp4"].get("error")
    assert found["0.mp4"]["problems"] == []


# --- Continuing ----------------------------------------------------------------------------------


class StopError(Exception):
    pass


def stop_after(count: int) -> Callable[..., None]:
    def on_video(done: int, _count: int, _line: object) -> None:
        if done == count:
            raise StopError

    return on_video


def test_a_run_goes_on(tmp_path: Path, model: Path, data: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(StopError):
        evaluate(model, data, output, on_video=stop_after(2), **OPTIONS)
    before = (output / "results.jsonl").read_bytes()
    assert before.count(b"\n") == 3
    (output / "results.jsonl").write_bytes(before + b'{"file": "3.mp4", "pa')  # as after kill -9
    done = evaluate(model, data, output, **OPTIONS)
    assert done.done_before == 2
    assert (output / "results.jsonl").read_bytes().startswith(before)
    whole = lines(output)
    assert len({line["path"] for line in whole[1:]}) == len(whole) - 1 == VIDEOS
    again = evaluate(model, data, output, **OPTIONS)
    assert (again.done_before, lines(output)) == (VIDEOS, whole)
    again.metrics["run"].pop("Date"), done.metrics["run"].pop("Date")
    for metrics in (again.metrics, done.metrics):
        for values in metrics["evaluated"].values():
            values.pop("memory_bytes")
    assert again.metrics == done.metrics


@pytest.mark.parametrize("cut", ["", "{", '{"evaluation": 1, "mod'])
def test_a_first_line_that_is_cut_off(tmp_path: Path, model: Path, data: Path, cut: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.jsonl").write_text(cut)
    assert evaluate(model, data, tmp_path / "out", **OPTIONS).done_before == 0
    assert len(lines(tmp_path / "out")) == VIDEOS + 1


def test_a_replaced_video_is_done_again(tmp_path: Path, videos: Path, model: Path) -> None:
    for name in ("0.mp4", "1.mp4"):
        shutil.copy(videos / name, tmp_path / name)
    data, output = write_list(tmp_path, tmp_path, {"0.mp4": 0, "1.mp4": 0}), tmp_path / "out"
    evaluate(model, data, output, **OPTIONS)
    shutil.copy(videos / "5.mp4", tmp_path / "1.mp4")
    done = evaluate(model, data, output, **OPTIONS)
    assert done.done_before == 1
    assert done.metrics["evaluated"]["int8"]["videos"]["total"] == 2
    last = lines(output)[-1]
    expected = np.argsort(-logits_of(videos / "5.mp4", 2.0))
    assert [label for label, _ in last["results"]["int8"]["top"]] == [LABELS[i] for i in expected]


def test_failed_videos_are_tried_again_where_wanted(
    tmp_path: Path, videos: Path, model: Path
) -> None:
    shutil.copy(videos / "0.mp4", tmp_path / "0.mp4")
    data = write_list(tmp_path, tmp_path, {"0.mp4": 0, "later.mp4": 1, "broken.mp4": 1})
    (tmp_path / "broken.mp4").write_text("no video")
    output = tmp_path / "out"
    assert evaluate(model, data, output, **OPTIONS).unreadable == 2
    shutil.copy(videos / "1.mp4", tmp_path / "later.mp4")  # a file that comes is done by itself
    assert evaluate(model, data, output, **OPTIONS).unreadable == 1
    count = len(lines(output))
    evaluate(model, data, output, **OPTIONS)
    assert len(lines(output)) == count
    evaluate(model, data, output, retry_failed=True, **OPTIONS)
    assert len(lines(output)) == count + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtypes": ["fp32"]}, "made with models"),
        ({"views": Views(channel_order="bgr")}, "made with channel order rgb, not bgr"),
        ({"function_to_apply": "sigmoid"}, "made with function"),
    ],
)
def test_results_of_another_run_are_kept(
    tmp_path: Path, model: Path, data: Path, change: dict[str, Any], message: str
) -> None:
    output = tmp_path / "out"
    evaluate(model, data, output, **OPTIONS)
    kept = {file.name: file.read_bytes() for file in output.iterdir()}
    with pytest.raises(InvalidOptionError, match=f"{message}.*`force=True`"):
        evaluate(model, data, output, **change, **OPTIONS)
    assert {file.name: file.read_bytes() for file in output.iterdir()} == kept


def test_metrics_that_cannot_be_written_are_an_output_error(
    tmp_path: Path, model: Path, data: Path
) -> None:
    output = tmp_path / "out"
    (output / "metrics.json").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"metrics\.json cannot be written: "):
        evaluate(model, data, output, force=True, **OPTIONS)
    assert sorted(file.name for file in output.iterdir()) == ["metrics.json", "results.jsonl"]


def test_results_of_other_data_are_kept(tmp_path: Path, model: Path, data: Path) -> None:
    output = tmp_path / "out"
    evaluate(model, data, output, **OPTIONS)
    whole = data.read_text().splitlines()
    data.write_text("\n".join(whole[: VIDEOS // 2 - 1]))
    with pytest.raises(InvalidOptionError, match=rf"{VIDEOS // 2 + 1} of which the data does not"):
        evaluate(model, data, output, **OPTIONS)
    path, _, label = whole[0].rpartition(" ")
    data.write_text("\n".join([f"{path} {(int(label) + 1) % 4}", *whole[1:]]))
    with pytest.raises(InvalidOptionError, match="had the label"):
        evaluate(model, data, output, **OPTIONS)
    assert evaluate(model, data, output, force=True, **OPTIONS).done_before == 0


def test_folders_of_others(tmp_path: Path, model: Path, data: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "report.html").write_text("mine")
    with pytest.raises(InvalidOptionError, match=r"has report.html but no results.jsonl"):
        evaluate(model, data, output, **OPTIONS)
    (output / "results.jsonl").write_text("mine\n")
    with pytest.raises(InvalidOptionError, match="line 1 is not of an evaluation"):
        evaluate(model, data, output, **OPTIONS)
    assert (output / "results.jsonl").read_text() == "mine\n"
    assert evaluate(model, data, output, force=True, **OPTIONS).done_before == 0
    with pytest.raises(OSError, match="give a folder that can be made"):
        evaluate(model, data, tmp_path / "list.txt", **OPTIONS)


def test_results_that_vanish_are_an_error(tmp_path: Path, model: Path, data: Path) -> None:
    output = tmp_path / "out"

    def remove(_done: int, _count: int, _line: object) -> None:
        (output / "results.jsonl").unlink(missing_ok=True)

    with pytest.raises(OutputError, match="not there any more"):
        evaluate(model, data, output, on_video=remove, **OPTIONS)


# --- Two models ----------------------------------------------------------------------------------


def test_against_another_model(tmp_path: Path, model: Path, data: Path) -> None:
    other = tmp_path / "other"
    TinyGraph(scale=3.0).save(other / "onnx" / "model.onnx")
    write_sidecars(other)
    done = evaluate(model, data, tmp_path / "out", dtypes=["fp32"], against=other, **OPTIONS)
    assert list(done.metrics["evaluated"]) == ["fp32", "other fp32"]
    (comparison,) = done.metrics["comparisons"]
    assert (comparison["first"], comparison["second"]) == ("other fp32", "fp32")
    for line in lines(tmp_path / "out")[1:]:
        expected = LABELS[int(np.argmax(logits_of(Path(line["path"]), 3.0)))]
        assert line["results"]["other fp32"]["top"][0][0] == expected


def test_another_model_may_have_other_preprocessing(
    tmp_path: Path, model: Path, data: Path
) -> None:
    other = tmp_path / "other"
    TinyGraph().save(other / "onnx" / "model.onnx")
    half = {**preprocessor_config(), "image_mean": [0.5] * 3, "image_std": [0.1] * 3}
    write_sidecars(other, preprocessor=half)
    evaluate(model, data, tmp_path / "out", dtypes="fp32", against=other, **OPTIONS)
    for line in lines(tmp_path / "out")[1:]:
        for name, preprocessor in (("fp32", None), ("other fp32", half)):
            logits = logits_of(Path(line["path"]), preprocessor=preprocessor)
            scores = np.exp(logits - logits.max())
            best = (scores / scores.sum()).max()
            assert line["results"][name]["top"][0][1] == pytest.approx(best, abs=1e-4)


def test_another_models_labels_may_have_another_order(
    tmp_path: Path, model: Path, data: Path
) -> None:
    other = tmp_path / "other"
    TinyGraph().save(other / "onnx" / "model.onnx")
    turned = [label.upper().replace("_", " ") for label in (*LABELS[2:], *LABELS[:2])]
    write_sidecars(other, model_config(id2label=dict(enumerate(turned))))
    evaluate(model, data, tmp_path / "out", dtypes=["fp32"], against=other, **OPTIONS)
    for line in lines(tmp_path / "out")[1:]:
        (mine, _), (theirs, _) = (
            line["results"][name]["top"][0] for name in ("fp32", "other fp32")
        )
        assert LABELS.index(theirs) == (LABELS.index(mine) + 2) % 4
    write_sidecars(other, model_config(id2label={0: "cut", 1: "b", 2: "c", 3: "none"}))
    with pytest.raises(InvalidOptionError, match=r"no label 'fade_in'.*same labels"):
        evaluate(model, data, tmp_path / "no", dtypes=["fp32"], against=other, **OPTIONS)
    assert not (tmp_path / "no").exists()


def test_against_a_variant(tmp_path: Path, model: Path, data: Path) -> None:
    done = evaluate(model, data, tmp_path / "out", dtypes=["int8"], against="fp32", **OPTIONS)
    (comparison,) = done.metrics["comparisons"]
    assert (comparison["first"], comparison["second"]) == ("fp32", "int8")
    for against in (str(model), "int8"):
        with pytest.raises(InvalidOptionError, match="`against`"):
            evaluate(model, data, tmp_path / "no", dtypes=["int8"], against=against, **OPTIONS)


# --- Several labels ------------------------------------------------------------------------------


def test_several_labels_a_video(tmp_path: Path, videos: Path) -> None:
    model = write_exported_model(tmp_path / "multi")
    write_sidecars(model, model_config(problem_type="multi_label_classification"))
    data = tmp_path / "list.csv"
    data.write_text(
        "video,label\n" + "".join(f"{videos}/{n}.mp4,{n % 4}|{(n + 1) % 4}\n" for n in range(6))
    )
    done = evaluate(model, data, tmp_path / "out", **OPTIONS)
    assert done.metrics["function"] == "sigmoid"
    assert done.metrics["evaluated"]["fp32"]["mean_average_precision"]["value"] is not None
    for line in lines(tmp_path / "out")[1:]:
        scores = 1 / (1 + np.exp(-logits_of(Path(line["path"]))))
        result = line["results"]["fp32"]
        assert result["scores"] == pytest.approx(scores, abs=1e-5)
        assert len(result["true"]) == len(line["true_labels"]) == 2
        assert "log_probability" not in result
    assert "mAP" in done.sentence


def test_regressions_are_refused(tmp_path: Path, data: Path) -> None:
    model = write_exported_model(tmp_path / "regression")
    write_sidecars(model, model_config(problem_type="regression"))
    with pytest.raises(InvalidOptionError, match="gives numbers, not labels"):
        evaluate(model, data, tmp_path / "out", **OPTIONS)


def test_ties_count_against_the_model(tmp_path: Path, videos: Path) -> None:
    """A model with weights of zero whose bias is equal for all labels answers at random."""
    import onnx  # noqa: PLC0415
    from onnx import numpy_helper  # noqa: PLC0415

    proto = TinyGraph(scale=0.0).proto()
    for tensor in proto.graph.initializer:
        if tensor.name == "bias":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(4, np.float32), "bias"))
    (tmp_path / "flat" / "onnx").mkdir(parents=True)
    onnx.save(proto, tmp_path / "flat" / "onnx" / "model.onnx")
    write_sidecars(tmp_path / "flat")
    data = write_list(tmp_path, videos, {"0.mp4": 0, "1.mp4": 1})
    done = evaluate(tmp_path / "flat", data, tmp_path / "out", **OPTIONS)
    assert done.metrics["evaluated"]["fp32"]["top_1"]["count"] == 0
    assert all(line["results"]["fp32"]["true"] == [[0.25, 4]] for line in lines(done.folder)[1:])


def test_answers_that_are_not_finite_are_wrong_and_not_unreadable(
    tmp_path: Path, videos: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_exported_model(tmp_path / "shots", ("fp32", "int8"))
    bad = logits_of(videos / "2.mp4", 2.0).astype(np.float32)
    original = Session.run

    def overflowing(self: Session, names: Any, inputs: Any, seconds: float) -> Any:
        values = original(self, names, inputs, seconds)
        if np.allclose(values[0][0], bad, atol=1e-4):
            values[0] = np.full_like(values[0], np.nan)
        return values

    monkeypatch.setattr(Session, "run", overflowing)
    done = evaluate(model, data, tmp_path / "out", dtypes=["fp32", "int8"], **OPTIONS)
    fp32, int8 = done.metrics["evaluated"].values()
    assert (fp32["videos"]["unreadable"], int8["videos"]["unreadable"]) == (0, 0)
    assert (fp32["videos"]["not_finite"], int8["videos"]["not_finite"]) == (0, 1)
    assert fp32["top_1"]["of"] == int8["top_1"]["of"] == VIDEOS
    (line,) = (line for line in lines(done.folder)[1:] if line["path"].endswith("2.mp4"))
    assert "not valid" in line["results"]["int8"]["error"]
    assert "error" not in line["results"]["fp32"]


def test_nothing_is_written_where_an_argument_is_wrong(
    tmp_path: Path, model: Path, data: Path
) -> None:
    for arguments in (
        {"root": tmp_path / "no folder"},
        {"workers": 0},
        {"labels_by": "x"},
        {"dtypes": ["fp32", "fp32"]},
        {"dtypes": ["fp64"]},
        {"split": "val"},
        {"against": "no such model"},
    ):
        with pytest.raises(TimesformerError):
            evaluate(model, data, tmp_path / "out", **arguments, **OPTIONS)
        assert not os.path.lexists(tmp_path / "out"), arguments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": None}, "`data` is None; it must be a path"),
        ({"output": 5}, "`output` is 5; it must be a path"),
        ({"output": b"out"}, "`output` is b'out'; it must be a path"),
        ({"output": ""}, r"`output` is empty; give a path, such as \."),
        ({"output": "a\0b"}, r"`output` is 'a\\x00b', which has a NUL character"),
        ({"data": "a\0b"}, r"`data` is 'a\\x00b', which has a NUL character"),
        ({"root": Path("a\0b")}, r"`root` is 'a\\x00b', which has a NUL character"),
        ({"root": 5}, "`root` is 5; it must be a path"),
        ({"labels": ["a"]}, r"`labels` is \['a'\]; it must be a path"),
        ({"dtypes": 5}, "`dtypes` is 5; it must be a name, such as 'int8', or a list of names"),
        ({"split": 3}, "`split` is 3"),
        ({"on_video": 5}, "`on_video` is 5; it must be a function"),
        ({"threads": 0}, "`threads` is 0; it must be an integer from 1"),
        ({"channel_order": "bgr"}, r"say `views=Views\(channel_order='bgr'\)`"),
        ({"sampling": "center"}, r"say `views=Views\(sampling=Sampling\('center'\)\)`"),
        (
            {"channel_order": "bgr", "crops": 3},
            r"`crops` and `channel_order` are options of Views; "
            r"say `views=Views\(crops=3, channel_order='bgr'\)`$",
        ),
        (
            {"channel_order": "bgr", "protocol": "facebook"},
            r"`protocol` and `channel_order` are .*`views=Views.facebook\(channel_order='bgr'\)`$",
        ),
        ({"crops": 3}, r"say `views=Views\(crops=3\)`"),
        ({"protocol": "facebook"}, r"say `views=Views.facebook\(\)`"),
    ],
)
def test_an_argument_of_a_wrong_type(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"data": "data", "output": "out", **change}
    with pytest.raises(InvalidOptionError, match=message):
        evaluate("model", **arguments)


def test_parents_of_the_output_are_made(tmp_path: Path, model: Path, data: Path) -> None:
    evaluate(model, data, tmp_path / "a" / "b", **OPTIONS)
    assert (tmp_path / "a" / "b" / "report.html").exists()


def test_results_of_videos_that_are_gone_do_not_count(
    tmp_path: Path, model: Path, data: Path
) -> None:
    output = tmp_path / "out"
    evaluate(model, data, output, **OPTIONS)
    data.write_text("\n".join(data.read_text().splitlines()[1:]))
    found = evaluate(model, data, output, **OPTIONS)
    assert found.done_before == VIDEOS - 1
    assert next(iter(found.metrics["evaluated"].values()))["top_1"]["of"] == VIDEOS - 1
    assert found.left_out == 1


def test_a_moved_dataset_goes_on(tmp_path: Path, videos: Path, model: Path, data: Path) -> None:
    output, moved = tmp_path / "out", tmp_path / "moved"
    names = tmp_path / "names.txt"
    names.write_text(data.read_text().replace(f"{videos}/", ""))
    evaluate(model, names, output, root=videos, **OPTIONS)
    shutil.copytree(videos, moved)  # with the times of change
    names = names.rename(tmp_path / "renamed.txt")
    found = evaluate(model, names, output, root=moved, **OPTIONS)
    assert found.done_before == VIDEOS
    os.utime(moved / "1.mp4", (1.0, 1.0))
    assert evaluate(model, names, output, root=moved, **OPTIONS).done_before == VIDEOS - 1


def test_other_files_of_equal_names_are_other_data(
    tmp_path: Path, videos: Path, model: Path, data: Path
) -> None:
    output, others = tmp_path / "out", tmp_path / "others"
    names = tmp_path / "names.txt"
    names.write_text(data.read_text().replace(f"{videos}/", ""))
    evaluate(model, names, output, root=videos, **OPTIONS)
    kept = (output / "metrics.json").read_bytes()
    shutil.copytree(videos, others)
    for number in range(VIDEOS // 2 + 1):
        os.utime(others / f"{number}.mp4", (1.0, 1.0))
    with pytest.raises(InvalidOptionError, match="of which the data does not have"):
        evaluate(model, names, output, root=others, **OPTIONS)
    assert (output / "metrics.json").read_bytes() == kept
