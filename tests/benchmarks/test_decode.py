"""The benchmark of decoding runs on any folder, with the decoders that are installed."""

import shutil
from pathlib import Path

from click.testing import CliRunner

from tests.benchmarks.decode import main

SAMPLES = Path(__file__).parents[2] / "runtime/timesformer_runtime/sample_clips"


def test_a_row_for_each_video(tmp_path: Path) -> None:
    for name in ("cut.mp4", "none.mp4"):
        shutil.copy(SAMPLES / name, tmp_path)
    (tmp_path / "notes.txt").write_text("not a video")
    result = CliRunner().invoke(main, [str(tmp_path), "--rounds", "1"], catch_exceptions=False)
    assert result.exit_code == 0
    for name in ("cut.mp4", "none.mp4", "all that the decoder reads"):
        assert name in result.output
    assert "notes.txt" not in result.output
