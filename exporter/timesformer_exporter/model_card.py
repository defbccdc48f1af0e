"""The README.md of a bundle: what it came from, how it was checked and how to run it."""

import shlex
from collections.abc import Mapping
from typing import Any

from timesformer_exporter.checks import Proof
from timesformer_exporter.config import TimesformerConfig

_ATTENTION = {
    "divided_space_time": "divided space-time attention",
    "joint_space_time": "joint space-time attention",
    "space_only": "space-only attention",
}


def model_card(
    *,
    name: str,
    config: TimesformerConfig,
    source: Mapping[str, Any],
    task: str,
    input_name: str,
    opset: int,
    proof: Proof,
    notes: tuple[str, ...],
) -> str:
    """The text of a model card in the Hub's format."""
    height, width = config.image_hw
    parts = [
        f"---\nlibrary_name: timesformer-onnx\npipeline_tag: {_pipeline_tag(task)}\n"
        "tags:\n- timesformer\n- onnx\n- video-classification\n---\n",
        f"# {name}\n",
        "" if proof.passed else "**Rejected: this export differs from PyTorch. Do not use it.**\n",
        f"TimeSformer with {_ATTENTION[config.attention_type]} as ONNX: {config.num_hidden_layers} "
        f"layers, hidden size {config.hidden_size}, {config.num_frames} frames of "
        f"{height}x{width} pixels, "
        + (f"{config.num_labels} labels" if config.num_labels else "no classification head")
        + ".\n",
        f"## Where it comes from\n\n{_source(source)}\n",
        _notes(notes),
        f"## How it was checked\n\n{_checked(proof)}\n",
        f"## How to run it\n\n{_usage(name, task, input_name, config)}\n" if proof.passed else "",
        f"{_operators(proof)}, opset {opset}. The batch axis is dynamic; the number of frames is "
        "not. Each `.onnx` file carries its configuration, labels, preprocessing and a golden "
        "check in its metadata, so one file is enough.\n",
    ]
    return "\n".join(part for part in parts if part)


def _operators(proof: Proof) -> str:
    if any(variant.dtype == "q4" for variant in proof.variants):
        return "Standard ONNX, but for q4 (ONNX Runtime's `com.microsoft.MatMulNBits`)"
    return "Standard ONNX"


def _pipeline_tag(task: str) -> str:
    return task if task == "video-classification" else "feature-extraction"


def _source(source: Mapping[str, Any]) -> str:
    revision = f", revision `{source['revision']}`" if source["revision"] else ""
    lines = [f"`{source['model']}`{revision} ({source['format']} format):\n"]
    lines += [f"- `{file}`, SHA-256 `{digest}`" for file, digest in source["files"].items()]
    return "\n".join(lines)


def _notes(notes: tuple[str, ...]) -> str:
    return "Assumed in the export:\n\n" + "\n".join(f"- {n}" for n in notes) + "\n" if notes else ""


def _checked(proof: Proof) -> str:
    rows = [
        f"| {c.title} | {c.batch} | {c.max_abs:.2e} | {c.limit:.2e} | {c.cosine:.9f} | "
        + (f"{c.top1:.0%} / {c.top5:.0%} |" if c.top1 is not None else "- |")
        for c in proof.fidelity.comparisons
    ]
    return (
        "ONNX Runtime on the CPU against PyTorch in float32, on generated clips:\n\n"
        "| output | batch | max abs difference | limit | cosine | top-1 / top-5 agreement |\n"
        "|---|---|---|---|---|---|\n" + "\n".join(rows) + _variants(proof)
    )


def _variants(proof: Proof) -> str:
    if not proof.variants:
        return ""
    rows = [
        f"| {v.dtype} | {v.cosine:.5f} | {v.max_abs:.2e} | "
        + (
            "- | - | - |"
            if v.top1 is None
            else f"{v.top1:.0%} | {v.top5:.0%} | {v.score_change:.4f} |"
        )
        for v in proof.variants
    ]
    gate = "" if proof.gated else " The thresholds were switched off (`--no-gate`)."
    return (
        f"\n\nReduced precision against PyTorch in float32, on {proof.variants[0].clips} clips "
        f"(sample videos and generated ones).{gate}\n\n"
        "| dtype | cosine, centred | max abs difference | top-1 | top-5 | score change |\n"
        "|---|---|---|---|---|---|\n" + "\n".join(rows)
    )


def _usage(name: str, task: str, input_name: str, config: TimesformerConfig) -> str:
    folder = shlex.quote(name)
    if task == "video-classification":
        command = f"timesformer classify {folder} video.mp4"
        call = "for prediction in classifier(" + '"video.mp4"' + "):\n    print(prediction)"
    else:
        command = f"timesformer classify {folder} video.mp4 --features features.npz"
        call = f'features = classifier.features("video.mp4")  # float32 [{config.hidden_size}]'
    height, width = config.image_hw
    contract = (
        f"`pixel_values`, float32 [batch, {config.num_frames}, {config.num_channels}, "
        f"{height}, {width}], preprocessed as `preprocessor_config.json` says"
        if input_name == "pixel_values"
        else f"`frames`, uint8 RGB [batch, {config.num_frames}, height, width, 3] of any size"
    )
    return (
        '```sh\npip install "timesformer-onnx[cpu]"\n' + command + "\n```\n\n"
        "```python\nfrom timesformer_runtime import VideoClassifier\n\n"
        f'classifier = VideoClassifier.from_pretrained("{name}")\n{call}\n```\n\n'
        f"Any ONNX Runtime runs it too; its input is {contract}."
    )
