"""ClassifyVideos: a column of videos in, columns of results out. Needs pyarrow, and not Ray."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from timesformer_runtime import InvalidOptionError, VideoClassifier

from tests.tiny_graphs import moving_frames, write_exported_model, write_videos

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `parquet`)")

NEW = ["labels", "scores", "times", "problems", "error"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("columns")
    write_exported_model(folder / "model")
    write_videos(folder)
    return folder


@pytest.fixture(scope="module")
def classify(folder: Path) -> Any:
    from timesformer_runtime.ray import ClassifyVideos  # noqa: PLC0415

    return ClassifyVideos(folder / "model", device="cpu", top_k=2)


def test_paths_give_what_classify_gives(folder: Path, classify: Any) -> None:
    paths = [str(folder / name) for name in ("b.mkv", "a.mp4", "broken.mp4", "b.mkv")]
    found = classify({"video": np.array(paths), "number": np.arange(4)})
    assert list(found) == ["video", "number", *NEW]
    assert list(found["video"]) == paths
    here = VideoClassifier.from_pretrained(folder / "model", device="cpu", threads=1)
    for place in (0, 1, 3):
        expected = here.classify(paths[place], 2)
        row = {name: found[name][place].as_py() for name in NEW}
        assert row == {
            "labels": [prediction["label"] for prediction in expected.predictions],
            "scores": [prediction["score"] for prediction in expected.predictions],
            "times": list(expected.times or ()),
            "problems": [],
            "error": None,
        }
    assert "broken.mp4" in found["error"][2].as_py()
    assert [found[name][2].as_py() for name in NEW[:4]] == [[], [], None, []]


def test_bytes_and_arrays_give_what_their_files_give(folder: Path, classify: Any) -> None:
    path = folder / "a.mp4"
    by_path = classify({"video": [str(path)]})
    by_bytes = classify({"video": [path.read_bytes()]})
    assert "video" not in by_bytes
    assert by_bytes["scores"] == by_path["scores"]
    frames = moving_frames(21)
    by_array = classify({"video": np.stack([frames, frames])})
    expected = VideoClassifier.from_pretrained(folder / "model", device="cpu")(frames, top_k=2)
    assert by_array["labels"].to_pylist() == [[p["label"] for p in expected]] * 2
    assert by_array["times"].to_pylist() == [None, None]


def test_columns_have_types_without_a_value(folder: Path, classify: Any) -> None:
    """Parts of a Parquet dataset could not be read together otherwise."""
    good, bad = (
        {name: classify({"video": [value]})[name].type for name in NEW}
        for value in (str(folder / "a.mp4"), None)
    )
    assert good == bad
    assert good["error"] == pyarrow.string()


def test_rows_without_a_video_keep_the_paths_of_the_others(folder: Path, classify: Any) -> None:
    """Ray Data gives None for such a row, and NaN where a batch has no other ones."""
    path = str(folder / "a.mp4")
    found = classify({"video": np.array([path, None, np.nan], object)})
    assert found["video"].to_pylist() == [path, None, None]
    assert found["error"].to_pylist()[0] is None
    assert found["error"][1].as_py() == found["error"][2].as_py()
    alone = classify({"video": np.array([np.nan], np.float32)})
    assert alone["video"].type == found["video"].type == pyarrow.string()
    assert alone["video"].to_pylist() == [None]
    assert alone["error"] == found["error"][1:2]


def test_paths_among_bytes_stay_without_the_bytes(folder: Path, classify: Any) -> None:
    path = folder / "a.mp4"
    found = classify({"video": [path.read_bytes(), str(path)]})
    assert found["video"].to_pylist() == [None, str(path)]
    assert found["labels"][0] == found["labels"][1]
    assert "video" not in classify({"video": [path.read_bytes(), None]})


def test_an_empty_path_is_a_path(classify: Any) -> None:
    found = classify({"video": [""]})
    assert found["video"] == [""]
    assert "is empty" in found["error"][0].as_py()


def test_tables_of_arrow_are_batches_too(folder: Path, classify: Any) -> None:
    path = folder / "a.mp4"
    expected = classify({"video": [str(path)]})["scores"].to_pylist()
    for value in (str(path), path.read_bytes()):
        table = pyarrow.table({"video": [value, None], "number": [3, 4]})
        for batch in (table, *table.to_batches()):
            found = classify(batch)
            assert found["scores"].to_pylist() == [*expected, []]
            assert found["number"].to_pylist() == [3, 4]
            assert ("video" in found) == isinstance(value, str)
    with pytest.raises(InvalidOptionError, match=r"the columns are path$"):
        classify(pyarrow.table({"path": ["a.mp4"]}))


def test_a_pickle_is_the_configuration(folder: Path, classify: Any) -> None:
    packed = pickle.dumps(classify)
    assert len(packed) < 2000
    again = pickle.loads(packed)
    batch = {"video": [str(folder / "a.mp4")]}
    assert again(batch)["scores"] == classify(batch)["scores"]


def test_threads_are_shared_out(folder: Path) -> None:
    from timesformer_runtime.ray import ClassifyVideos  # noqa: PLC0415

    assert ClassifyVideos(folder / "model", device="cpu", threads=2).classifier.threads == 1
    with pytest.raises(InvalidOptionError, match=r"`threads` is 0"):
        ClassifyVideos(folder / "model", threads=0)
    with pytest.raises(InvalidOptionError, match=r"`threads` is 1025"):
        ClassifyVideos(folder / "model", threads=1025)


def test_a_missing_column_is_named(classify: Any) -> None:
    with pytest.raises(InvalidOptionError, match=r"`column` is 'video'; the columns are path"):
        classify({"path": ["a.mp4"]})
