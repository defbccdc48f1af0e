"""Describes a model from its files, without loading it: ``inspect_model``.

Nothing of the model runs, and its weights are not read. So a description takes no longer for a
large model, and is safe for a stranger's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from timesformer_runtime.errors import (
    HubError,
    InvalidModelError,
    MissingDependencyError,
    ModelNotFoundError,
)
from timesformer_runtime.json_object import finite, parse_json_object, read_json_object
from timesformer_runtime.model import hub
from timesformer_runtime.model.class_names import class_names
from timesformer_runtime.model.graph_facts import GraphFacts, read_graph_facts
from timesformer_runtime.model.graph_file import source_of_file
from timesformer_runtime.model.loaded import ModelDescription, describe
from timesformer_runtime.model.locate import (
    DTYPES,
    INT8_OF_7_BITS,
    ModelFiles,
    find_model,
    list_dtypes,
)
from timesformer_runtime.model.session import TensorInfo

_ARCHITECTURE = (
    *("attention_type", "num_hidden_layers", "hidden_size", "num_attention_heads"),
    *("intermediate_size", "num_frames", "image_size", "patch_size", "num_channels"),
)
_REPORT = "export_report.json"
_MEASURES = ("clips", "batch", "max_abs", "limit", "relative", "cosine", "top1", "top5", "passed")


def inspect_model(
    model: str,
    *,
    dtype: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> dict[str, Any]:
    """Describes a model; of a model on the Hub, it downloads one variant.

    Args:
        model: A folder, one ``.onnx`` file or a Hub id.
        dtype: The variant to describe; by default the one that the runtime takes on a CPU.
        revision: Branch, tag or commit of a Hub id.
        local_files_only: True to use only files that were downloaded before.

    Returns:
        The facts by name, as values of JSON. What the files do not state is None, and named in
        ``not_stated``.

    Raises:
        ModelNotFoundError: The model does not exist, or does not have that variant.
        InvalidModelError: The file is not an ONNX model, or damaged.
        InvalidOptionError: An option does not apply to this model.
        HubError: The Hub cannot be reached or refuses access.
        MissingDependencyError: The model is on the Hub and ``huggingface_hub`` is not installed.
    """
    files = find_model(
        model, device="cpu", dtype=dtype, revision=revision, local_files_only=local_files_only
    )
    dtypes = list_dtypes(model, revision=revision, local_files_only=local_files_only)
    graph = Path(str(files.graph))
    _size(graph)  # refuses a file that is not a model
    facts = read_graph_facts(graph)
    description, problem = _describe(files, facts)
    config = _entry(facts, "config") or _config(files)
    found: dict[str, Any] = {
        "model": model,
        "file": str(graph),
        "dtype": description.dtype if description else files.dtype,
        "target": facts.metadata.get("target"),
        "int8_target": facts.metadata.get("int8_target"),
        "problem": problem,
        "task": facts.metadata.get("task"),
        "architecture": {key: config[key] for key in _ARCHITECTURE if key in config} or None,
        "labels": _labels(config),
        "problem_type": config.get("problem_type"),
        "clip": _clip(facts, config, description),
        "preprocessing": _preprocessing(facts, description),
        "inputs": [_tensor(tensor) for tensor in facts.inputs],
        "outputs": [_tensor(tensor) for tensor in facts.outputs],
        "variants": list(_variants(files, dtypes, model, revision)),
        "opsets": facts.opsets,
        "operators": facts.operators,
        "ir_version": facts.ir_version,
        "producer": facts.producer or None,
        "source": _entry(facts, "source"),
        "made_with": _entry(facts, "made_with"),
        "checks": _checks(_report(model, graph, revision, local_files_only), graph),
        "golden_check": "golden" in facts.metadata,
        "notes": list(description.notes) if description else [],
    }
    described: dict[str, Any] = finite(found | {"not_stated": list(_not_stated(found))})
    return described


def _describe(files: ModelFiles, facts: GraphFacts) -> tuple[ModelDescription | None, str | None]:
    """Describes the model as the runtime sees it, or says why the runtime cannot run it."""
    try:
        return describe(files, facts), None
    except InvalidModelError as error:
        return None, str(error)


def _entry(facts: GraphFacts, key: str) -> dict[str, Any] | None:
    """Reads an entry of the metadata; None where it is missing or broken: see ``problem``."""
    with contextlib.suppress(InvalidModelError):
        return parse_json_object(facts.metadata.get(key, ""), key)
    return None


def _config(files: ModelFiles) -> Mapping[str, Any]:
    with contextlib.suppress(InvalidModelError):
        return files.config or {}
    return {}


def _labels(config: Mapping[str, Any]) -> Sequence[str] | None:
    with contextlib.suppress(InvalidModelError):
        return class_names(config)
    return None


def _clip(
    facts: GraphFacts, config: Mapping[str, Any], description: ModelDescription | None
) -> dict[str, Any]:
    sampling = _entry(facts, "frame_sampling") or {}
    return {
        "num_frames": description.input.num_frames if description else config.get("num_frames"),
        "sampling": sampling.get("method"),
        "frame_rate": sampling.get("frame_rate"),
    }


def _preprocessing(
    facts: GraphFacts, description: ModelDescription | None
) -> Mapping[str, Any] | None:
    if description is None:
        return _entry(facts, "preprocessor_config")
    if description.preprocessing is None:
        return {"in_graph": True}
    return description.preprocessing.to_dict()


def _tensor(tensor: TensorInfo) -> dict[str, Any]:
    return {"name": tensor.name, "type": tensor.type, "shape": list(tensor.shape)}


def _variants(
    chosen: ModelFiles, dtypes: Sequence[str], model: str, revision: str | None
) -> Iterator[dict[str, Any]]:
    """Describes each variant; those on the Hub that were not downloaded have no size."""
    if not dtypes:
        graph = Path(str(chosen.graph))
        yield {"dtype": chosen.dtype, "file": graph.name, "bytes": _size(graph)}
    for dtype in dtypes:
        try:
            # Never the network: other variants are only listed.
            files = find_model(
                model, device="cpu", dtype=dtype, revision=revision, local_files_only=True
            )
            for graph in _files_of(dtype, Path(str(files.graph))):
                yield {"dtype": dtype, "file": graph.name, "bytes": _size(graph)}
        except (ModelNotFoundError, HubError):
            yield {"dtype": dtype, "file": None, "bytes": None}
        except InvalidModelError as error:
            yield {"dtype": dtype, "file": None, "bytes": None, "problem": str(error)}


def _files_of(dtype: str, chosen: Path) -> list[Path]:
    """Lists the chosen file of a variant, and of int8 the one for other processors, if any."""
    names = (DTYPES[dtype], INT8_OF_7_BITS) if dtype == "int8" else ()
    others = (chosen.with_name(name) for name in names if name != chosen.name)
    return [chosen, *(other for other in others if other.is_file())]


def _size(graph: Path) -> int:
    """The bytes of a graph, and of the files beside it that hold its weights."""
    return sum(file.size for file in source_of_file(graph, str(graph), maps=False).files)


def _report(
    model: str, graph: Path, revision: str | None, local_files_only: bool
) -> Mapping[str, Any] | None:
    """Reads the report of the export, in the folder of the model or on the Hub."""
    folder = graph.parent.parent if graph.parent.name == "onnx" else graph.parent
    with contextlib.suppress(
        InvalidModelError, ModelNotFoundError, HubError, MissingDependencyError
    ):
        if (folder / _REPORT).is_file():
            return read_json_object(folder / _REPORT)
        if not Path(model).exists():
            return read_json_object(
                hub.download(model, _REPORT, revision=revision, local_files_only=local_files_only)
            )
    return None


def _checks(report: Mapping[str, Any] | None, graph: Path) -> dict[str, Any] | None:
    """Reads the checks from a report, which anyone may have written.

    Returns:
        ``verdict``; ``describes_this_file``, False where the report is of a file of another size;
        ``fidelity``, fp32 against PyTorch; ``gate``, each variant against PyTorch.
    """
    if report is None:
        return None
    stated = _object(_object(report.get("files")).get(f"onnx/{graph.name}")).get("bytes")
    comparisons = _object(report.get("fidelity")).get("comparisons")
    return {
        "verdict": report.get("verdict"),
        "describes_this_file": stated == graph.stat().st_size,
        "fidelity": [_measures(row, "output") for row in _list(comparisons)],
        "gate": [_measures(row, "dtype", "name") for row in _list(report.get("variants"))],
        "gate_switched_off": report.get("gate") == "off",
    }


def _measures(row: object, *keys: str) -> dict[str, Any]:
    values = _object(row)
    return {name: values[name] for name in (*keys, *_MEASURES) if name in values}


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def _not_stated(found: Mapping[str, Any]) -> Iterator[str]:
    """Names the facts that the files do not state."""
    for name in ("architecture", "preprocessing", "source", "made_with", "checks", "golden_check"):
        if not found[name]:
            yield name
    if not found["labels"] and any(output["name"] == "logits" for output in found["outputs"]):
        yield "labels"
    for name in ("num_frames", "sampling"):
        if found["clip"][name] is None:
            yield name
