"""``examples/spark`` on a local Spark of two processes.

``make check-spark`` makes an environment with PySpark and runs this test in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from timesformer_runtime import VideoClassifier

from tests.tiny_graphs import moving_frames, write_exported_model, write_video

pytest.importorskip("pyspark", reason="PySpark is not installed; `make check-spark` runs this test")
if shutil.which("java") is None:
    pytest.skip("Java is not installed", allow_module_level=True)

ROOT = Path(__file__).parents[2]


def test_the_table_has_the_labels_of_each_video(tmp_path: Path) -> None:
    import pyarrow.parquet  # noqa: PLC0415

    model = write_exported_model(tmp_path / "model")
    videos = tmp_path / "videos"
    for number in range(6):
        write_video(videos / f"{number}.mp4", moving_frames(9 + number))
    (videos / "broken.mp4").write_text("no video")
    (videos / "broken, empty.mp4").touch()
    output = tmp_path / "labels.parquet"
    done = subprocess.run(
        [sys.executable, ROOT / "examples/spark/classify.py", model, videos, output],
        env=os.environ | {"PYSPARK_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = pyarrow.parquet.read_table(output).to_pylist()
    assert sorted(row["video"] for row in rows) == sorted(map(str, videos.iterdir()))
    classifier = VideoClassifier.from_pretrained(model, device="cpu", threads=1)
    for row in rows:
        if "broken" in row["video"]:
            assert row["video"] in row["error"]
            assert row["labels"] == []
        else:
            expected = classifier(row["video"])
            assert row["error"] is None
            assert row["labels"] == [prediction["label"] for prediction in expected]
            assert row["scores"] == [prediction["score"] for prediction in expected]
