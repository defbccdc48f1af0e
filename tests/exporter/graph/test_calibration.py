"""Calibration videos: the export's choice of them, and its use of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from timesformer_exporter.errors import InvalidOptionError
from timesformer_exporter.export import ExportResult, export
from timesformer_exporter.graph.calibration import find_videos, readable_videos
from timesformer_exporter.graph.smoothing import ChannelPeaks, smooth, smoothed_products
from timesformer_exporter.model.timesformer import TimesformerForVideoClassification
from timesformer_exporter.options import ExportOptions
from timesformer_runtime.input.preprocess import Preprocessing

from tests.patience import PATIENCE
from tests.tiny_models import ATTENTION_TYPES, random_model, tiny_config, write_checkpoint
from tests.video_files import moving_pictures, write_video

COMMAND = Path(sys.executable).with_name("timesformer-export")


def _with_outliers(model: TimesformerForVideoClassification) -> TimesformerForVideoClassification:
    """Makes channels after each LayerNorm 50 times as large, and the next weights smaller."""
    with torch.no_grad():
        for number, (norm, product) in enumerate(smoothed_products(model)):
            channels = [number % 32, (number + 7) % 32]
            norm.weight[channels] *= 50
            norm.bias[channels] *= 50
            product.weight[:, channels] /= 50
    return model


def _clips(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def _peaks(model: TimesformerForVideoClassification) -> ChannelPeaks:
    found = ChannelPeaks(model)
    with torch.no_grad(), found.watching():
        for clip in _clips(4):
            model(clip[None])
    return found


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_smoothing_does_not_change_a_single_bit(attention_type: str) -> None:
    model = _with_outliers(random_model(tiny_config(attention_type)))
    with torch.no_grad():
        before = model(_clips(2))
        ranges = [norm.weight.abs().max() for norm, _ in smoothed_products(model)]
        smooth(model, _peaks(model))
        assert torch.equal(model(_clips(2)), before)
    for (norm, _), widest in zip(smoothed_products(model), ranges, strict=True):
        assert norm.weight.abs().max() < widest / 4


def test_factors_are_those_of_the_paper() -> None:
    model = _with_outliers(random_model(tiny_config()))
    found = _peaks(model)
    norm, product = next(iter(smoothed_products(model)))
    peaks, weights = found.peaks[norm], product.weight.detach().abs().amax(dim=0)
    before = norm.weight.detach().clone()
    smooth(model, found, strength=0.5)
    factors = before / norm.weight.detach()
    wanted = peaks.sqrt() / weights.sqrt()
    ratio = factors / wanted
    assert ratio.max() / ratio.min() <= 2.0  # each is rounded to a power of two
    assert torch.equal(factors, torch.exp2(torch.log2(factors).round()))


def test_channels_that_are_never_used_stay_as_they_are() -> None:
    model = random_model(tiny_config())
    norm, product = next(iter(smoothed_products(model)))
    with torch.no_grad():
        norm.weight[3] = norm.bias[3] = 0.0
        product.weight[:, 5] = 0.0
    kept = norm.weight[5].item()
    smooth(model, _peaks(model))
    assert norm.weight[5].item() == kept
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_peaks_are_of_what_was_watched_alone() -> None:
    model = random_model(tiny_config("joint_space_time"))
    found = ChannelPeaks(model)
    loud = 5 * _clips(1)
    with torch.no_grad():
        with found.watching():
            model(_clips(1))
        norm, _ = next(iter(smoothed_products(model)))
        peaks = found.peaks[norm].clone()
        model(loud)
        assert torch.equal(found.peaks[norm], peaks)
        outputs: list[torch.Tensor] = []
        norm.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        model(_clips(1))
    assert torch.equal(peaks, outputs[0].abs().amax(dim=(0, 1)))


def _videos(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        write_video(folder / f"{number:02}.mp4", moving_pictures(6, 32, 48, seed=number))
    return folder


def _export(tmp_path: Path, **options: Any) -> ExportResult:
    config = tiny_config("joint_space_time")
    preprocessing = Preprocessing(size=32, crop_size=(32, 32)).to_dict()
    model = _with_outliers(
        write_checkpoint(tmp_path / "model", config, preprocessing=preprocessing)
    )
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    return export(
        ExportOptions(str(tmp_path / "model"), output=tmp_path / "exported", force=True, **options)
    )


def _answer(path: Path) -> Any:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, {"pixel_values": _clips(1).numpy()})[0]])


def test_int8_is_better_with_calibration_and_float32_the_same(tmp_path: Path) -> None:
    videos = _videos(tmp_path / "videos" / "class", 17)
    dtypes = ("fp32", "int8")
    plain = _export(tmp_path, dtypes=dtypes, gate=False)
    before = _answer(plain.folder / "onnx" / "model.onnx")
    assert json.loads((plain.folder / "export_report.json").read_text())["calibration"] is None
    (without,) = plain.proof.variants
    result = _export(tmp_path, dtypes=dtypes, calibration_videos=(videos.parent,))
    (variant,) = result.proof.variants
    assert result.passed
    assert variant.clips == 17
    assert 1 - variant.cosine < (1 - without.cosine) / 10
    assert np.array_equal(_answer(result.folder / "onnx" / "model.onnx"), before)

    report = json.loads((result.folder / "export_report.json").read_text())
    used = {"videos": 17, "method": "SmoothQuant", "strength": 0.5}
    assert report["calibration"] == used
    assert report["gate_clips"] == {"calibration video": 17}
    for name in ("model.onnx", "model_int8.onnx"):
        session = onnxruntime.InferenceSession(
            result.folder / "onnx" / name, providers=["CPUExecutionProvider"]
        )
        metadata = session.get_modelmeta().custom_metadata_map
        assert json.loads(metadata["calibration"]) == used
    for path in result.folder.rglob("*"):
        assert path.is_dir() or b"00.mp4" not in path.read_bytes(), path


def test_few_videos_are_filled_up_and_broken_ones_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    videos = _videos(tmp_path / "videos", 2)
    (videos / "broken.mp4").write_bytes(b"no video")
    result = _export(tmp_path, dtypes=("int8",), calibration_videos=(videos,))
    assert [record.getMessage() for record in caplog.records if "Skipped" in record.message] == [
        message for message in caplog.messages if "broken.mp4" in message
    ]
    assert "1 of 3 calibration videos did not decode." in result.notes
    assert result.proof.gate_clips["calibration video"] == 2
    assert sum(result.proof.gate_clips.values()) == 16


def test_each_video_is_found_once(tmp_path: Path) -> None:
    videos = _videos(tmp_path / "videos" / "inner", 2)
    (videos / "notes.txt").write_text("no video")
    (videos / "folder.mp4").mkdir()
    os.mkfifo(videos / "pipe.mp4")
    named = tmp_path / "no-suffix"
    named.write_bytes((videos / "00.mp4").read_bytes())
    found = find_videos([tmp_path / "videos", videos / "00.mp4", named])
    assert found == (videos / "00.mp4", videos / "01.mp4", named)


def test_paths_that_hold_no_video(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidOptionError, match="empty: the folder holds no file that is named"):
        find_videos([tmp_path / "empty"])
    with pytest.raises(InvalidOptionError, match="absent: there is no such path"):
        find_videos([tmp_path / "absent"])
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    told: list[str] = []
    with pytest.raises(InvalidOptionError, match=r"none of the 1 file\(s\) is a video"):
        readable_videos([broken], 3, told.append)
    assert len(told) == 1
    assert "broken.mp4" in told[0]


def test_the_command_takes_what_a_shell_expands(tmp_path: Path) -> None:
    videos = _videos(tmp_path / "videos", 3)
    write_checkpoint(
        tmp_path / "model",
        tiny_config("space_only"),
        preprocessing=Preprocessing(size=32, crop_size=(32, 32)).to_dict(),
    )
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    done = subprocess.run(
        [
            *(str(COMMAND), "--calibration-videos", str(videos / "00.mp4"), str(videos / "01.mp4")),
            *(str(tmp_path / "broken.mp4"), "--dtype", "int8", "--model", "model"),
            *("--calibration-videos", str(videos / "02.mp4"), "--no-gate"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("Skipped")]
    assert len(lines) == 1
    assert "broken.mp4" in lines[0]
    report = json.loads((tmp_path / "model-onnx" / "export_report.json").read_text())
    assert report["calibration"]["videos"] == 3
    assert "matrix products in integers as ONNX Runtime runs it" in done.stdout
    assert "the thresholds of the variants are switched off (--no-gate)" in done.stdout
