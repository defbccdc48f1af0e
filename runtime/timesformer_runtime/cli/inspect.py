"""``timesformer inspect``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import click

from timesformer_runtime.cli.model_options import combined, dtype_option, hub_options
from timesformer_runtime.cli.output import check_output, echo, say
from timesformer_runtime.errors import listed, named, printable, quoted

_MOST_LABELS = 5
_ATTENTION = {
    "divided_space_time": "divided space-time attention",
    "joint_space_time": "joint space-time attention",
    "space_only": "space-only attention",
}
_TARGETS = {
    "onnxruntime": "onnxruntime: the fastest on ONNX Runtime's CPU provider",
    "portable": "portable: for other execution providers",
}


@click.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with all labels.")
@combined(*hub_options(), dtype_option("int8, else fp32"))
def inspect(model: str, as_json: bool, **options: Any) -> None:
    """Describe MODEL from its files: what it is, what it was made from, how it was checked.

    Nothing of the model runs. The command reads the metadata of one .onnx file, of the files
    beside it, and of the export's report. Files of other tools state less: the last line names
    what is not stated. For a model on the Hub the command downloads one variant.
    """
    from timesformer_runtime.model.inspection import inspect_model  # noqa: PLC0415

    check_output()
    found = inspect_model(model, **options)
    for note in found["notes"]:
        say(f"{model}: {note}")
    if as_json:
        echo(json.dumps(found))
        return
    facts = {name: fact for name, fact in _facts(found) if fact}
    width = max(map(len, facts))
    for name, fact in facts.items():
        echo(f"{name:{width}}  {printable(fact)}")


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Gives the name and the text of each fact."""
    target = f" for {_text(found['int8_target'])}" if found["int8_target"] else ""
    yield "file", f"{found['file']} ({found['dtype'] or 'dtype not stated'}{target})"
    yield "problem", f"cannot run here: {found['problem']}" if found["problem"] else ""
    yield "task", _text(found["task"])
    yield "architecture", _architecture(found["architecture"] or {})
    yield "labels", _labels(found["labels"] or ())
    yield "clip", _clip(found["clip"])
    yield "preprocessing", _preprocessing(found["preprocessing"] or {})
    yield "input", "; ".join(map(_tensor, found["inputs"]))
    yield "outputs", "; ".join(map(_tensor, found["outputs"][:10]))
    yield "variants", ", ".join(map(_variant, found["variants"]))
    yield "operators", _operators(found)
    yield "target", _TARGETS.get(found["target"], _text(found["target"]))
    yield "made from", _source(found["source"] or {})
    yield "made with", _pairs(found["made_with"] or {})
    yield "producer", "" if found["made_with"] else _text(found["producer"])
    yield "checked", _checks(found)
    yield "not stated", ", ".join(found["not_stated"]).replace("_", " ")


def _text(value: object) -> str:
    """Writes any value of JSON; nothing for null."""
    if value is None:
        return ""
    return named(value) if isinstance(value, str) else quoted(value)


def _pairs(values: Mapping[str, Any]) -> str:
    return listed(f"{name} {_text(value)}" for name, value in values.items())


def _architecture(config: Mapping[str, Any]) -> str:
    kind = config.get("attention_type")
    attention = _ATTENTION.get(kind, _text(kind)) if isinstance(kind, str) else _text(kind)
    parts = (
        ("", "num_hidden_layers", "layers"),
        ("hidden size", "hidden_size", ""),
        ("", "num_attention_heads", "heads"),
        ("images of", "image_size", "pixels"),
        ("patches of", "patch_size", "pixels"),
    )
    texts = [
        " ".join(filter(None, (before, _text(config[key]), after)))
        for before, key, after in parts
        if config.get(key) is not None
    ]
    return ", ".join(filter(None, (attention, *texts)))


def _labels(labels: Any) -> str:
    return f"{len(labels)}: {listed(labels, _MOST_LABELS)}" if labels else ""


def _clip(clip: Mapping[str, Any]) -> str:
    frames = f"{_text(clip['num_frames'])} frames" if clip["num_frames"] is not None else ""
    sampling = _text(clip["sampling"])
    if sampling == "uniform":
        sampling = "spread evenly over the whole video, whatever its frame rate"
    return ", ".join(filter(None, (frames, sampling)))


def _preprocessing(values: Mapping[str, Any]) -> str:
    if values.get("in_graph"):
        return "in the graph: it takes frames of any size"
    steps = (
        ("do_resize", "resize to", "size"),
        ("do_center_crop", "crop the middle", "crop_size"),
        ("do_rescale", "scale by", "rescale_factor"),
        ("do_normalize", "subtract the mean", "image_mean"),
        ("do_normalize", "divide by", "image_std"),
    )
    return ", ".join(
        f"{verb} {_measure(values[key])}"
        for switch, verb, key in steps
        if values.get(switch, True) and values.get(key) is not None
    )


def _measure(value: object) -> str:
    if isinstance(value, Mapping):
        if set(value) == {"height", "width"}:
            return f"{_text(value['height'])}x{_text(value['width'])}"
        return _pairs(value).replace("shortest_edge", "shortest edge")
    return f"{value:.6g}" if isinstance(value, float) else _text(value)


def _tensor(tensor: Mapping[str, Any]) -> str:
    kind = tensor["type"].removeprefix("tensor(").removesuffix(")")
    kind = "float32" if kind == "float" else kind
    shape = ", ".join("?" if side is None else str(side) for side in tensor["shape"])
    return f"{named(tensor['name'])} {kind} [{_short(shape)}]"


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:120]}..."


def _variant(variant: Mapping[str, Any]) -> str:
    name = variant["dtype"] or named(variant["file"])
    if name == "int8" and variant["file"]:  # there may be a file for each kind of CPU
        name = PurePath(variant["file"]).stem.removeprefix("model_")
    if "problem" in variant:
        return f"{name} (damaged)"
    return f"{name} {_size(variant['bytes'])}"


def _size(size: int | None) -> str:
    if size is None:
        return "(not downloaded)"
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _operators(found: Mapping[str, Any]) -> str:
    nodes = {domain: sum(counts.values()) for domain, counts in found["operators"].items()}
    texts = [
        f"{named(domain)} opset {version}: {nodes[domain]} nodes"
        for domain, version in found["opsets"].items()
        if domain in nodes
    ]
    return listed(texts)


def _source(source: Mapping[str, Any]) -> str:
    revision = source.get("revision")
    parts = (
        _text(source.get("model")),
        f"revision {_text(revision)}" if revision is not None else "",
        f"format {_text(source.get('format'))}" if source.get("format") is not None else "",
    )
    return ", ".join(filter(None, parts))


def _checks(found: Mapping[str, Any]) -> str:
    golden = "golden check in the file (timesformer verify)" if found["golden_check"] else ""
    checks = found["checks"]
    if checks is None:
        return golden
    if not checks["describes_this_file"]:
        return "; ".join(filter(None, ("export_report.json describes another file", golden)))
    verdict = f"{_text(checks['verdict'])} against PyTorch"
    rows = [("fp32", row) for row in checks["fidelity"][-1:]]
    rows += [(_text(row.get("name", row.get("dtype"))), row) for row in checks["gate"]]
    texts = [f"{name} {_row(row)}" for name, row in rows]
    off = "thresholds switched off" if checks["gate_switched_off"] else ""
    return "; ".join(filter(None, (verdict, *texts[:10], off, golden)))


def _row(row: Mapping[str, Any]) -> str:
    numbers = [
        f"{name.replace('_', '-')} {row[name]:.3g}"
        if name == "max_abs"
        else f"{name} {row[name]:.5f}"
        for name in ("max_abs", "cosine")
        if isinstance(row.get(name), int | float)
    ]
    return f"({', '.join(numbers)})" if numbers else ""
