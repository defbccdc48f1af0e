"""Small, intact models and checkpoints for the fuzzer to damage: one for each kind of file."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from timesformer_exporter.export import export
from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.options import Dtype, ExportOptions
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.model.gate import THRESHOLDS, Threshold
from timesformer_runtime.model.golden import GENERATOR

from tests import checkpoint_samples, tiny_models
from tests.fuzz.campaign import Campaign
from tests.tiny_graphs import (
    FRAMES,
    SIZE,
    TinyGraph,
    class_bias,
    model_config,
    own_metadata,
    preprocessor_config,
    write_sidecars,
)

MOST_SECONDS = 10.0  # of processor time, for one case
_GOLDEN = {"generator": GENERATOR, "seed": 0, "shape": [FRAMES, SIZE, SIZE, 3]}
_MAPPED = 1 << 16  # bytes; the runtime maps integer weights of at least this size


@dataclasses.dataclass(frozen=True)
class Seed:
    """A kind of model or checkpoint.

    Attributes:
        write: Writes the files into a folder that does not exist yet.
        kind: How the worker uses the seed; ``bytes`` is a model that the worker loads from bytes.
        target: The file that the worker loads; empty for the folder.
        on_hub: True where the worker loads the seed from a Hub.
        is_refused: True where loading must refuse the seed even when it is intact.
        names_another: True where the seed may name a model elsewhere, which loading then reads.
    """

    write: Callable[[Path], object]
    kind: Literal["model", "bytes", "checkpoint"]
    target: str = ""
    on_hub: bool = False
    is_refused: bool = False
    names_another: bool = False


def _own(folder: Path, **changes: Any) -> None:
    """Writes a graph with all metadata in it, as timesformer-export does."""
    golden = {**_GOLDEN, "output": "logits", "values": class_bias().tolist()}
    graph = TinyGraph(metadata=own_metadata(golden=golden), **changes)
    graph.save(folder / "onnx" / "model.onnx")


def _of_others(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes a graph without metadata, as other tools do; files beside the graph describe it."""
    TinyGraph().save(folder / "model.onnx")
    _write_json(folder, {"config.json": model_config(), **files})


def _external(folder: Path) -> None:
    """Writes a graph whose matrix is in a file beside it; small constants stay in the graph."""
    TinyGraph().save(
        folder / "model.onnx",
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=70,  # bytes, as sys.getsizeof counts them
    )
    write_sidecars(folder)


def _mapped(folder: Path) -> None:
    """Writes a graph with integer weights that are large enough to stay in the file."""
    model = TinyGraph(metadata=own_metadata()).proto()
    weights = np.random.default_rng(0).integers(-9, 9, (4, _MAPPED // 4), dtype=np.int8)
    model.graph.initializer.append(numpy_helper.from_array(weights, "large"))
    nodes = [
        helper.make_node("Cast", ["large"], ["large_floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["large_floats", "last"], ["more"], keepdims=0),
        helper.make_node("Add", ["answer", "more"], ["sum"]),
    ]
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "last"))
    *others, last = model.graph.node
    last.input[0] = "sum"
    del model.graph.node[:]
    model.graph.node.extend([*others, *nodes, last])
    folder.mkdir()
    onnx.save(model, folder / "model_int8.onnx")


def _safetensors(folder: Path) -> None:
    processing = Preprocessing(size=32, crop_size=(32, 32)).to_dict()
    tiny_models.write_checkpoint(folder, _config(), preprocessing=processing)


def _config() -> TimesformerConfig:
    return tiny_models.tiny_config(num_hidden_layers=1, hidden_size=8, intermediate_size=8)


def _state(config: TimesformerConfig | None = None) -> dict[str, torch.Tensor]:
    model = tiny_models.random_model(config or _config())
    return checkpoint_samples.random_state(model.state_dict())


def _sharded(folder: Path, suffix: str, write: Callable[[Any, Path], object]) -> None:
    """Writes tensors into two files, and the index that tells which file has which tensor."""
    _safetensors(folder)
    (folder / "model.safetensors").unlink()
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    names = sorted(_state())
    index: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        shard = f"{stem}-{number:05}-of-00002{suffix}"
        write({name: _state()[name] for name in part}, folder / shard)
        index |= dict.fromkeys(part, shard)
    values = {"metadata": {"total_size": 1}, "weight_map": index}
    _write_json(folder, {f"{stem}{suffix}.index.json": values})


def _saved(folder: Path, name: str, tree: Callable[[], object], **options: Any) -> None:
    """Writes a file of ``torch.save``, and the configuration that Hugging Face's names need."""
    folder.mkdir()
    config = {"pytorch_model.bin": _config(), "last.ckpt": _config_of_64()}.get(name)
    if config is not None:
        _write_json(folder, {"config.json": config.to_dict()})
    torch.save(tree(), folder / name, **options)


def _facebook() -> dict[str, Any]:
    cfg = "DATA:\n  NUM_FRAMES: 3\n  MEAN: [0.4, 0.45, 0.5]\nTRAIN:\n  DATASET: kinetics\n"
    state = checkpoint_samples.to_facebook(_head_of_64())
    optimizer = {"state": {0: {"step": 1, "exp_avg": torch.zeros(2)}}, "param_groups": [{}]}
    return {"model_state": state, "cfg": cfg, "epoch": 3, "optimizer_state": optimizer}


def _mmaction2() -> dict[str, Any]:
    meta = {"epoch": 3, "time": np.float64(1.5), "dataset_meta": {"classes": ("a", "b")}}
    return {"state_dict": checkpoint_samples.to_mmaction2(_head_of_64()), "meta": meta}


def _averaged() -> dict[str, Any]:
    """Makes a tree of weights and their average, as a trainer saves it."""
    state = checkpoint_samples.to_facebook(_head_of_64())
    return {"model": state, "model_ema": state, "epoch": 3}


def _whole() -> torch.nn.Module:
    """Makes a module, which ``torch.save`` writes whole: with the names of its classes."""
    return tiny_models.random_model(_config())


def _adapter(folder: Path, base: str) -> None:
    """Writes a LoRA adapter that names ``base``, and in its folder ``base`` a base model."""
    name = "timesformer.encoder.layer.0.attention.attention.qkv"
    hidden = _config().hidden_size
    factors = {
        f"base_model.model.{name}.lora_A.weight": torch.ones(2, hidden),
        f"base_model.model.{name}.lora_B.weight": torch.ones(3 * hidden, 2),
    }
    folder.mkdir()
    _safetensors(folder / "base")
    save_file(factors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "base_model_name_or_path": base, "lora_alpha": 4, "r": 2}
    _write_json(folder, {"adapter_config.json": settings})


def _lightning() -> dict[str, Any]:
    state = {f"model.{name}": tensor for name, tensor in _head_of_64().items()}
    callbacks = {"ModelCheckpoint": {"best_model_path": Path("a.ckpt"), "best": torch.tensor(1.0)}}
    return {"state_dict": state, "callbacks": callbacks, "hyper_parameters": {"lr": 0.1}}


def _head_of_64() -> dict[str, torch.Tensor]:
    """Makes tensors of one attention head of 64, which the exporter assumes without a config."""
    return _state(_config_of_64())


def _config_of_64() -> TimesformerConfig:
    return tiny_models.tiny_config(
        num_hidden_layers=1, hidden_size=64, num_attention_heads=1, intermediate_size=8
    )


def _write_json(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values))


_NESTED = {
    "video_processor": {**preprocessor_config(), "video_processor_type": "VideoMAEVideoProcessor"},
    "image_processor": preprocessor_config(),
    "processor_class": "Processor",
}
_PROCESSORS: dict[str, dict[str, Any]] = {
    "preprocessor": {"preprocessor_config.json": preprocessor_config()},
    "video-preprocessor": {
        "video_preprocessor_config.json": {**preprocessor_config(), "do_sample_frames": True},
        "preprocessor_config.json": preprocessor_config(),
    },
    "nested-processor": {"processor_config.json": _NESTED},
    "vit-processor": {
        "preprocessor_config.json": {"feature_extractor_type": "ViTFeatureExtractor", "size": SIZE}
    },
    "convnext-processor": {
        "preprocessor_config.json": {
            "image_processor_type": "ConvNextImageProcessor",
            "size": {"shortest_edge": SIZE},
            "crop_pct": 0.875,
        }
    },
    "vivit-processor": {
        "preprocessor_config.json": {
            "image_processor_type": "VivitImageProcessor",
            "size": {"shortest_edge": 32},
            "crop_size": {"height": SIZE, "width": SIZE},
        }
    },
}

_ANY_FRAMES = {"input_type": TensorProto.UINT8, "shape": ("batch", FRAMES, "height", "width", 3)}
_OPTIONS: dict[str, Any] = {"_use_new_zipfile_serialization": False}
_TORCH_SHARDS = functools.partial(_sharded, suffix=".bin", write=torch.save)
_SAFE_SHARDS = functools.partial(_sharded, suffix=".safetensors", write=save_file)

SEEDS: dict[str, Seed] = {
    "own": Seed(_own, "model"),
    "own-file": Seed(_own, "model", "onnx/model.onnx"),
    "own-bytes": Seed(_own, "bytes", "onnx/model.onnx"),
    "frames": Seed(functools.partial(_own, **_ANY_FRAMES), "model"),
    "half": Seed(functools.partial(_own, input_type=TensorProto.FLOAT16), "model"),
    "features": Seed(functools.partial(_own, features=True), "model"),
    "mapped": Seed(_mapped, "model"),
    "external": Seed(_external, "model"),
    "external-bytes": Seed(_external, "bytes", "model.onnx", is_refused=True),
    **{
        name: Seed(functools.partial(_of_others, files=files), "model")
        for name, files in _PROCESSORS.items()
    },
    "safetensors": Seed(_safetensors, "checkpoint"),
    "safetensors-shards": Seed(_SAFE_SHARDS, "checkpoint"),
    "torch": Seed(functools.partial(_saved, name="pytorch_model.bin", tree=_state), "checkpoint"),
    "torch-shards": Seed(_TORCH_SHARDS, "checkpoint"),
    "torch-stream": Seed(
        functools.partial(_saved, name="pytorch_model.bin", tree=_state, **_OPTIONS), "checkpoint"
    ),
    "facebook": Seed(functools.partial(_saved, name="model.pyth", tree=_facebook), "checkpoint"),
    "facebook-stream": Seed(
        functools.partial(_saved, name="model.pyth", tree=_facebook, **_OPTIONS), "checkpoint"
    ),
    "mmaction2": Seed(functools.partial(_saved, name="model.pth", tree=_mmaction2), "checkpoint"),
    "lightning": Seed(
        functools.partial(_saved, name="last.ckpt", tree=_lightning), "checkpoint", "last.ckpt"
    ),
    "averaged": Seed(functools.partial(_saved, name="model.pth", tree=_averaged), "checkpoint"),
    "whole": Seed(functools.partial(_saved, name="pytorch_model.bin", tree=_whole), "checkpoint"),
    # The path of the base model is relative to the worker's current folder, as for any command.
    "adapter": Seed(
        functools.partial(_adapter, base="../inside/model/base"), "checkpoint", names_another=True
    ),
    "hub-own": Seed(_own, "model", on_hub=True),
    "hub-external": Seed(_external, "model", on_hub=True),
    "hub-checkpoint": Seed(_SAFE_SHARDS, "checkpoint", on_hub=True),
}
# Files that timesformer-export writes. Their graphs have operators that the seeds above lack.
EXPORTED: tuple[Dtype, ...] = ("fp32", "fp16", "int8", "q4")


def write_seeds(folder: Path) -> list[str]:
    """Writes all seeds that need no export into an existing folder; returns their names."""
    for name, seed in SEEDS.items():
        seed.write(folder / name)
    return list(SEEDS)


def write_all_seeds(folder: Path) -> list[str]:
    """Writes all seeds; the exports take half a minute. Returns their names."""
    return [*write_seeds(folder), *_export(folder)]


def seed_of(name: str) -> Seed:
    """Finds a seed by name; an exported one is a folder of a model."""
    return SEEDS.get(name, Seed(_own, "model"))


def _export(folder: Path) -> list[str]:
    loose = Threshold(cosine=0.0, relative=9.0, top1=0.0, top5=0.0, score_change=9.0)
    THRESHOLDS["q4"] = loose  # tiny models have little redundancy
    model = folder.parent / "to export"
    # Its matrices are large enough to be mapped, and small enough for many cases.
    config = tiny_models.tiny_config(
        "joint_space_time", num_hidden_layers=1, hidden_size=160, intermediate_size=160
    )
    processing = Preprocessing(size=32, crop_size=(32, 32)).to_dict()
    tiny_models.write_checkpoint(model, config, preprocessing=processing)
    output = folder.parent / "exported"
    export(ExportOptions(str(model), output=output, dtypes=EXPORTED))
    for dtype in EXPORTED:
        (folder / dtype).mkdir()
        name = "model.onnx" if dtype == "fp32" else f"model_{dtype}.onnx"
        shutil.copy(output / "onnx" / name, folder / dtype)  # it has all metadata in it
    frames = folder.parent / "exported frames"
    export(ExportOptions(str(model), output=frames, dtypes=("fp32",), input="frames"))
    (folder / "exported-frames").mkdir()
    shutil.copy(frames / "onnx" / "model.onnx", folder / "exported-frames")
    return [*EXPORTED, "exported-frames"]


_MODELS = Campaign(
    worker="tests.fuzz.models.worker",
    make_seeds=write_seeds,
    successes=("ran",),
    success="ran all the same",
    most_seconds=MOST_SECONDS,
    most_mib=1 << 10,  # as the worker's address space: the memory of a graph has no other limit
)
QUICK_MODELS = _MODELS
MODELS = dataclasses.replace(_MODELS, make_seeds=write_all_seeds)
