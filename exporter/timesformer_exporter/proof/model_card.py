"""Writes the README.md of an exported model: its source, its checks and how to run it."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.options import ExportOptions
from timesformer_exporter.proof.accuracy_table import PYTORCH, Accuracy
from timesformer_exporter.proof.checks import Proof

_ATTENTION = {
    "divided_space_time": "divided space-time attention",
    "joint_space_time": "joint space-time attention",
    "space_only": "space-only attention",
}


def model_card(
    options: ExportOptions,
    config: TimesformerConfig,
    source: Mapping[str, Any],
    proof: Proof,
    own_operators: Mapping[str, Sequence[str]],
    notes: tuple[str, ...],
) -> str:
    """Writes the text of a model card in the Hub's format.

    Args:
        options: The options of the export.
        config: The model's configuration.
        source: The description of the checkpoint, as in the metadata.
        proof: How the files compare with PyTorch.
        own_operators: The names of ONNX Runtime's own operators in each variant, by its name.
        notes: One sentence for each thing that was assumed.
    """
    name = options.push_to_hub or options.folder.name
    height, width = config.image_hw
    parts = [
        f"---\nlibrary_name: timesformer-onnx\npipeline_tag: {_pipeline_tag(options.task)}\n"
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
        _accuracy(proof.accuracy) if proof.accuracy is not None else "",
        f"## How to run it\n\n{_usage(name, options, config)}\n" if proof.passed else "",
        f"## Which file for what\n\n{_files(options)}\n" if proof.variants else "",
        f"{_operators(own_operators)}, opset {options.operator_set}. The batch axis is dynamic; "
        "the number of frames is not. Each `.onnx` file carries its configuration, labels, "
        "preprocessing and a golden check in its metadata, so one file is enough.\n",
        _PORTABLE if options.target == "portable" else "",
    ]
    return "\n".join(part for part in parts if part)


_PORTABLE = """\
Exported with `--target portable`: all operators are standard ONNX and not the newest, and attention
is made of matrix products and softmax. So execution providers that do not know the newest operators
take the whole graph, such as OpenVINO's: `timesformer classify ... --provider openvino`. On ONNX
Runtime's CPU provider the files of the default target are faster.
"""


def _operators(own: Mapping[str, Sequence[str]]) -> str:
    exceptions = [f"{name} (`{'`, `'.join(names)}`)" for name, names in own.items() if names]
    if not exceptions:
        return "Standard ONNX"
    return f"Standard ONNX, but for ONNX Runtime's own operators in {' and '.join(exceptions)}"


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
        f"| {v.name} | {v.cosine:.5f} | {v.max_abs:.2e} | {v.typical_error:.2e} | "
        + (
            "- | - | - |"
            if v.top1 is None
            else f"{v.top1:.0%} ({v.decided_top1:.0%}) | {v.top5:.0%} ({v.decided_top5:.0%}) | "
            f"{v.score_change:.4f} |"
        )
        for v in proof.variants
    ]
    kinds = ", ".join(f"{count} {kind}s" for kind, count in proof.gate_clips.items())
    gate = "" if proof.gated else " The thresholds were switched off."
    labels = (
        " In brackets: of the clips where PyTorch's margin exceeds the error that is typical of it."
        if proof.variants[0].top1 is not None
        else ""
    )
    return (
        f"\n\nReduced precision against PyTorch in float32, on {proof.variants[0].clips} clips "
        f"({kinds}).{labels}{gate}\n\n"
        "| dtype | cosine, centred | max abs difference | typical | top-1 | top-5 "
        "| score change |\n"
        "|---|---|---|---|---|---|---|\n" + "\n".join(rows)
    )


def _accuracy(accuracy: Accuracy) -> str:
    rows = [
        f"| {model.name} | {_percent(model.top_1)}{_interval(model.interval, 100)} | "
        f"{_percent(model.top_5)} | "
        + (
            "- |"
            if model.name == PYTORCH
            else f"{model.loss + 0.0:.2f}{_interval(model.loss_interval, 1)} |"
        )
        for model in accuracy.models
    ]
    limit = "" if accuracy.limit is None else f" At most {accuracy.limit:g} points were allowed."
    return (
        "## How accurate it is\n\n"
        f"On {accuracy.videos:,} labelled videos, {accuracy.unreadable:,} of them unreadable, with "
        f"PyTorch on the same frames; in brackets 95 % intervals.{limit}\n\n"
        f"| model | {accuracy.measure} | top-5 | points lost |\n|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _interval(interval: tuple[float, float] | None, factor: float) -> str:
    if interval is None:
        return ""
    low, high = (factor * end + 0.0 for end in interval)  # + 0.0: no "-0.0"
    return f" ({low:.1f} to {high:.1f})"


_PURPOSES = {
    "fp32": "the reference; any device",
    "int8": "CPUs: the fastest there (x86 with VNNI or AMX, ARM)",
    "int8_avx2": "CPUs of x86 without VNNI or AMX: the fastest there",
    "fp16": "CUDA",
    "q4": "the smallest; on a CPU no faster than float32",
}
_INT8 = """\
Give the int8 file **one clip a run**, as `timesformer` does: its activations are quantized with one
scale for the whole input, so that a clip's result would depend on the clips beside it. """
_INT8_TARGETS = {
    "vnni": """\
On x86 without VNNI its products saturate. `timesformer` prevents that; any other program has to set
ONNX Runtime's session option `session.x64quantprecision` to `1`, which is exact and slower.""",
    "avx2": """\
It was made for x86 without VNNI: with weights of 7 bits its products saturate on no processor.""",
}

_BOTH_INT8_TARGETS = """\
On x86 without VNNI or AMX the products of `model_int8.onnx` saturate: run `model_int8_avx2.onnx`
there, whose weights have 7 bits. `timesformer` takes the file for its processor."""


def _files(options: ExportOptions) -> str:
    variants = options.variants
    rows = [f"| `onnx/{variant.file}` | {_PURPOSES[variant.name]} |" for variant in variants]
    table = "| file | for |\n|---|---|\n" + "\n".join(rows)
    if "int8" not in options.dtypes:
        return table
    if len(options.int8_targets) > 1:
        return f"{table}\n\n{_INT8}{_BOTH_INT8_TARGETS}"
    return f"{table}\n\n{_INT8}{_INT8_TARGETS[options.int8_targets[0]]}"


def _usage(name: str, options: ExportOptions, config: TimesformerConfig) -> str:
    folder = shlex.quote(name)
    if options.task == "video-classification":
        command = f"timesformer classify {folder} video.mp4"
        call = "for prediction in classifier(" + '"video.mp4"' + "):\n    print(prediction)"
    else:
        command = f"timesformer classify {folder} video.mp4 --features features.npz"
        call = f'features = classifier.features("video.mp4")  # float32 [{config.hidden_size}]'
    height, width = config.image_hw
    contract = (
        f"`pixel_values`, float32 [batch, {config.num_frames}, {config.num_channels}, "
        f"{height}, {width}], preprocessed as `preprocessor_config.json` says"
        if options.input == "pixel_values"
        else f"`frames`, uint8 RGB [batch, {config.num_frames}, height, width, 3] of any size"
    )
    return (
        '```sh\npip install "timesformer-onnx[cpu]"\n' + command + "\n```\n\n"
        "```python\nfrom timesformer_runtime import VideoClassifier\n\n"
        f'classifier = VideoClassifier.from_pretrained("{name}")\n{call}\n```\n\n'
        f"Any ONNX Runtime runs it too; its input is {contract}."
    )
