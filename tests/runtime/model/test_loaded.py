"""Models in all their forms: folders, single files, bytes, the Hub's cache; and broken ones."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from timesformer_runtime.cli.diagnosis import diagnose
from timesformer_runtime.cli.model_options import load
from timesformer_runtime.errors import (
    HubError,
    InvalidModelError,
    InvalidOptionError,
    ModelNotFoundError,
    TimesformerError,
)
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.model import cpu, hub
from timesformer_runtime.model.loaded import LoadedModel, load_model
from timesformer_runtime.model.locate import find_model
from timesformer_runtime.model.settings import SessionSettings

from tests.tiny_graphs import (
    FRAMES,
    LABELS,
    SIZE,
    TinyGraph,
    model_config,
    own_metadata,
    preprocessor_config,
    write_exported_model,
    write_sidecars,
)

ON_CPU = SessionSettings(device="cpu", threads=1)


def opened(model: str | Path | bytes, **options: Any) -> LoadedModel:
    return load_model(model, ON_CPU, **options)


def refusal(model: str | Path | bytes, error: type[TimesformerError], **options: Any) -> str:
    with pytest.raises(error) as caught:
        opened(model, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def logits_at_one(loaded: LoadedModel) -> float:
    """A number that tells which of the files of ``write_exported_model`` was loaded."""
    shape = (1, FRAMES, 3, SIZE, SIZE)
    (logits,) = loaded.session.run(["logits"], {"pixel_values": np.ones(shape, np.float32)})
    return float(logits[0, 0])


# --- Folders -------------------------------------------------------------------------------------


def test_a_folder_in_the_hub_layout(tmp_path: Path) -> None:
    loaded = opened(write_exported_model(tmp_path / "shots"))
    assert loaded.dtype == "fp32"
    assert loaded.labels == LABELS
    assert loaded.input.name == "pixel_values"
    assert loaded.input.num_frames == FRAMES
    assert loaded.preprocessing is not None
    assert loaded.preprocessing.output_size == (SIZE, SIZE)
    assert loaded.preprocessing.image_mean == (0.45, 0.4, 0.5)
    assert loaded.metadata == {}


@pytest.mark.parametrize(
    ("dtypes", "device", "chosen"),
    [
        (("fp32", "int8", "fp16"), "cpu", "int8"),
        (("fp32", "fp16", "q4"), "cpu", "fp32"),
        (("fp32", "int8", "fp16"), "cuda", "fp16"),
        (("fp32", "int8"), "cuda", "fp32"),
        (("int8", "fp32"), "openvino", "fp32"),
        (("q4",), "cpu", "q4"),
    ],
)
def test_default_dtype(tmp_path: Path, dtypes: tuple[str, ...], device: str, chosen: str) -> None:
    assert find_model(write_exported_model(tmp_path, dtypes), device=device).dtype == chosen


@pytest.mark.parametrize("dtype", [None, "int8"])
@pytest.mark.parametrize(
    ("saturates", "device", "files", "chosen"),
    [
        (False, "cpu", ("int8", "int8_avx2"), "model_int8.onnx"),
        (True, "cpu", ("int8", "int8_avx2"), "model_int8_avx2.onnx"),
        (True, "cuda", ("int8", "int8_avx2"), "model_int8.onnx"),
        (True, "cpu", ("int8",), "model_int8.onnx"),
        (False, "cpu", ("int8_avx2",), "model_int8_avx2.onnx"),
    ],
)
def test_of_two_int8_files_the_one_for_this_processor_is_taken(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: str | None,
    saturates: bool,
    device: str,
    files: tuple[str, ...],
    chosen: str,
) -> None:
    """On the Hub, the other one is not downloaded."""
    monkeypatch.setattr(cpu, "saturates_int8", lambda: saturates)
    write_exported_model(tmp_path, files)
    found = find_model(tmp_path, device=device, dtype=dtype)
    assert (found.graph, found.dtype) == (tmp_path / "onnx" / chosen, "int8")
    single = find_model(tmp_path / "onnx" / chosen, device=device, dtype=dtype)
    assert single.dtype == "int8"

    names = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")]
    downloaded = []

    def download(_: str, name: str, **__: object) -> Path:
        downloaded.append(name)
        return tmp_path / name

    monkeypatch.setattr(hub, "list_files", lambda *_, **__: names)
    monkeypatch.setattr(hub, "download", download)
    assert find_model("someone/shots", device=device, dtype=dtype).dtype == "int8"
    assert [name for name in downloaded if "onnx" in name] == [f"onnx/{chosen}"]


def test_dtype_picks_the_file(tmp_path: Path) -> None:
    write_exported_model(tmp_path, ("fp32", "fp16", "quantized"))
    answers = {dtype: logits_at_one(opened(tmp_path, dtype=dtype)) for dtype in ("fp32", "fp16")}
    answers["q8"] = logits_at_one(opened(tmp_path, dtype="q8"))
    fp32, fp16, q8 = answers["fp32"] - 0.1, answers["fp16"] - 0.1, answers["q8"] - 0.1
    assert fp16 == pytest.approx(2 * fp32, rel=1e-5)  # the second file
    assert q8 == pytest.approx(3 * fp32, rel=1e-5)  # the third


def test_dtype_that_is_not_there_says_what_is(tmp_path: Path) -> None:
    write_exported_model(tmp_path, ("fp32", "int8"))
    message = refusal(tmp_path, ModelNotFoundError, dtype="fp16")
    assert message == f"{tmp_path}: there is no fp16 (model_fp16.onnx); it has fp32, int8"


def test_dtype_that_does_not_exist(tmp_path: Path) -> None:
    message = refusal(write_exported_model(tmp_path), InvalidOptionError, dtype="int4")
    assert message.startswith("`dtype` is 'int4'; it must be one of fp32, fp16, int8")


def test_a_choice_that_is_not_obvious_must_be_made(tmp_path: Path) -> None:
    write_exported_model(tmp_path, ("q4", "uint8"))
    message = refusal(tmp_path, InvalidOptionError)
    assert message == f"{tmp_path}: it has uint8, q4; choose one by `dtype`"


def test_graph_at_the_root_of_the_folder(tmp_path: Path) -> None:
    write_sidecars(tmp_path)
    TinyGraph().save(tmp_path / "model_int8.onnx")
    assert opened(tmp_path).dtype == "int8"


def test_the_only_graph_may_have_any_name(tmp_path: Path) -> None:
    write_sidecars(tmp_path)
    TinyGraph().save(tmp_path / "my-timesformer.onnx")
    loaded = opened(tmp_path)
    assert loaded.dtype is None
    assert loaded.labels == LABELS
    TinyGraph().save(tmp_path / "onnx" / "other.onnx")
    message = refusal(tmp_path, ModelNotFoundError)
    assert "it has onnx/other.onnx, my-timesformer.onnx: give one of these files" in message


def test_of_many_graphs_the_first_are_named(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number:04}.onnx").touch()
    message = refusal(tmp_path, ModelNotFoundError)
    assert "it has 0000.onnx, 0001.onnx" in message
    assert "0009.onnx, ...: give one of these files" in message


def test_names_of_files_cannot_act_in_a_message(tmp_path: Path) -> None:
    (tmp_path / "a\n\x1b[2J\u202e.onnx").write_bytes(b"no model")
    message = refusal(tmp_path, InvalidModelError)
    assert message.isprintable()
    assert "a\\n\\x1b[2J\\u202e.onnx" in message


def test_external_data_beside_the_graph(tmp_path: Path) -> None:
    write_sidecars(tmp_path)
    TinyGraph().save(
        tmp_path / "onnx" / "model.onnx",
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=80,
    )
    assert (tmp_path / "onnx" / "model.onnx_data").exists()
    plain = write_exported_model(tmp_path / "plain")
    assert logits_at_one(opened(tmp_path)) == logits_at_one(opened(plain))


@pytest.mark.parametrize(
    ("files", "remedy"),
    [
        ([], "it has no .onnx file: give a folder that timesformer-export wrote, or a Hub id"),
        (["model.safetensors"], "it has PyTorch weights: export it first: timesformer-export"),
        (["onnx/model.onnx.rejected"], "an export that failed its check"),
    ],
)
def test_folders_without_a_graph(tmp_path: Path, files: list[str], remedy: str) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    assert remedy in refusal(tmp_path, ModelNotFoundError)
    assert remedy in refusal(tmp_path, ModelNotFoundError, dtype="fp32")


# --- One file ------------------------------------------------------------------------------------


def test_one_file_copied_away_is_enough(tmp_path: Path) -> None:
    loaded = opened(TinyGraph(metadata=own_metadata()).save(tmp_path / "alone.onnx"))
    assert loaded.labels == LABELS
    assert loaded.preprocessing is not None
    assert loaded.preprocessing.image_std == (0.225, 0.25, 0.2)
    assert loaded.dtype is None
    assert loaded.metadata["task"] == "video-classification"


def test_bytes(tmp_path: Path) -> None:
    loaded = opened(TinyGraph(metadata=own_metadata()).proto().SerializeToString())
    assert loaded.labels == LABELS
    assert loaded.name == "the model's bytes"


def test_metadata_wins_over_files_beside(tmp_path: Path) -> None:
    other = {str(index): f"other {index}" for index in range(4)}
    write_sidecars(tmp_path, model_config(id2label=other), preprocessor_config(size=99))
    loaded = opened(TinyGraph(metadata=own_metadata()).save(tmp_path / "model.onnx"))
    assert loaded.labels == LABELS
    assert loaded.preprocessing is not None
    assert loaded.preprocessing.output_size == (SIZE, SIZE)


def test_metadata_of_other_tools_is_not_taken_for_ours(tmp_path: Path) -> None:
    foreign = {"task": "detect", "config": "yaml: no", "golden": "yes"}
    write_sidecars(tmp_path)
    loaded = opened(TinyGraph(metadata=foreign).save(tmp_path / "model.onnx"))
    assert loaded.labels == LABELS
    assert loaded.metadata == {}


@pytest.mark.parametrize("place", ["beside", "one up"])
def test_a_third_party_export(tmp_path: Path, place: str) -> None:
    """Any input name, one output of any name, open dimensions, and the checkpoint's files."""
    shape = ("b", "t", "c", "h", "w")
    folder = tmp_path if place == "beside" else tmp_path / "onnx"
    graph = TinyGraph(input_name="video", shape=shape, output="output_0").save(folder / "net.onnx")
    write_sidecars(tmp_path)
    loaded = opened(graph)
    assert loaded.input.name == "video"
    assert loaded.input.num_frames == FRAMES  # of config.json
    assert loaded.outputs == {"logits": "output_0"}
    assert loaded.labels == LABELS


@pytest.mark.parametrize("place", ["beside", "one up"])
@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("video_preprocessor_config.json", None),
        ("processor_config.json", "video_processor"),
        ("processor_config.json", "image_processor"),
    ],
)
def test_a_third_party_export_with_the_files_of_transformers_5(
    tmp_path: Path, place: str, file: str, key: str | None
) -> None:
    folder = tmp_path if place == "beside" else tmp_path / "onnx"
    graph = TinyGraph().save(folder / "model.onnx")
    write_sidecars(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    values = preprocessor_config() | {"image_std": [0.1, 0.2, 0.3]}
    (tmp_path / file).write_text(json.dumps(values if key is None else {key: values}))
    loaded = opened(graph)
    assert loaded.preprocessing == Preprocessing.from_dict(values)
    assert loaded.notes == ()


def test_files_that_disagree_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    graph = TinyGraph().save(tmp_path / "model.onnx")
    write_sidecars(tmp_path)
    values = preprocessor_config() | {"image_std": [0.1, 0.2, 0.3]}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(values))
    loaded = opened(graph)
    assert loaded.preprocessing == Preprocessing.from_dict(values)
    (note,) = loaded.notes
    assert "video_preprocessor_config.json counts" in note
    assert note in caplog.text


def test_the_files_nearest_to_the_graph_count(tmp_path: Path) -> None:
    graph = TinyGraph().save(tmp_path / "onnx" / "model.onnx")
    write_sidecars(tmp_path / "onnx")
    (tmp_path / "processor_config.json").write_text('{"video_processor": {"size": 8}}')
    assert opened(graph).preprocessing == Preprocessing.from_dict(preprocessor_config())


def test_what_lies_near_a_complete_file_is_not_read(tmp_path: Path) -> None:
    graph = TinyGraph(metadata=own_metadata()).save(tmp_path / "model.onnx")
    (tmp_path / "config.json").write_text("not JSON")
    (tmp_path / "preprocessor_config.json").write_text("not JSON")
    assert opened(graph).preprocessing is not None


def test_the_folder_above_counts_only_for_a_folder_called_onnx(tmp_path: Path) -> None:
    for folder in ("downloads", "onnx"):
        (tmp_path / folder).mkdir()
        TinyGraph().save(tmp_path / folder / "model.onnx")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor_config()))
    assert opened(tmp_path / "onnx" / "model.onnx").preprocessing is not None
    refusal(tmp_path / "downloads" / "model.onnx", InvalidModelError)


def test_a_path_that_cannot_be_accessed(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name in ("x" * 300, "loop"):
        assert "cannot be accessed" in refusal(tmp_path / name, ModelNotFoundError)


def test_a_model_of_another_type() -> None:
    with pytest.raises(InvalidOptionError, match="model is a NoneType; give a path"):
        load_model(None, ON_CPU)  # type: ignore[arg-type]


def test_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    graph = TinyGraph(metadata=own_metadata()).save(tmp_path / "model.onnx")
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.onnx"))
    graph.rename(odd)
    with pytest.raises(InvalidModelError, match="opens only paths in UTF-8; rename it"):
        opened(odd)


def test_a_link_to_a_link_finds_the_files_between(tmp_path: Path) -> None:
    """As a link to the Hub's cache, whose files are links themselves."""
    blob, snapshot, here = (tmp_path / name for name in ("blobs/1", "snapshot", "here.onnx"))
    TinyGraph().save(blob)
    write_sidecars(snapshot)
    (snapshot / "onnx").mkdir()
    (snapshot / "onnx" / "model.onnx").symlink_to(blob)
    here.symlink_to(snapshot / "onnx" / "model.onnx")
    assert opened(here).labels == LABELS


def test_a_link_finds_the_files_of_its_target(tmp_path: Path) -> None:
    loaded = write_exported_model(tmp_path / "exported")
    link = tmp_path / "elsewhere" / "link.onnx"
    link.parent.mkdir()
    link.symlink_to(loaded / "onnx" / "model.onnx")
    assert opened(link).labels == LABELS


def test_dtype_of_a_single_file(tmp_path: Path) -> None:
    write_exported_model(tmp_path, ("fp32", "int8"))
    graph = tmp_path / "onnx" / "model_int8.onnx"
    assert opened(graph).dtype == "int8"
    assert opened(graph, dtype="int8").dtype == "int8"
    assert "is one given file: leave `dtype` out" in refusal(
        graph, InvalidOptionError, dtype="fp32"
    )
    named = TinyGraph(metadata=own_metadata(dtype="fp16")).save(tmp_path / "mine.onnx")
    assert opened(named).dtype == "fp16"  # what the file says of itself


@pytest.mark.parametrize("option", [{"revision": "main"}])
def test_options_of_the_hub_for_a_local_model(tmp_path: Path, option: dict[str, str]) -> None:
    message = refusal(write_exported_model(tmp_path), InvalidOptionError, **option)
    assert message == f"`revision` is 'main', but {tmp_path} is not a Hub id: leave `revision` out"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nothing/at/all", ModelNotFoundError, "there is no such folder or file"),
        ("model.safetensors", InvalidModelError, "timesformer-export --model"),
        ("model.txt", InvalidModelError, "must end in .onnx"),
    ],
)
def test_paths_that_are_no_model(
    tmp_path: Path, name: str, error: type[TimesformerError], message: str
) -> None:
    if "/" not in name:
        (tmp_path / name).touch()
    path = tmp_path / name
    text = refusal(path, error)
    assert text.startswith(f"{path}: ")
    assert message in text


@pytest.mark.parametrize("model", ["", b""])
def test_an_empty_name_is_no_model(model: str | bytes) -> None:
    with pytest.raises(ModelNotFoundError, match="the model is empty; give the folder of"):
        load_model(model, SessionSettings(device="cpu"))


# --- The Hub's cache -----------------------------------------------------------------------------


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cache_repository(cache: Path, repo_id: str, files: Path) -> None:
    """Stores a folder as huggingface_hub does: blobs, and links to them in a snapshot."""
    repository = cache / f"models--{repo_id.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(p for p in files.rglob("*") if p.is_file())):
        blob = repository / "blobs" / f"blob{number}"
        shutil.copyfile(file, blob)
        link = repository / "snapshots" / commit / file.relative_to(files)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))


def test_a_hub_id_in_the_cache(tmp_path: Path, hub_cache: Path) -> None:
    cache_repository(
        hub_cache, "someone/shots", write_exported_model(tmp_path / "b", ("fp32", "int8"))
    )
    loaded = opened("someone/shots", local_files_only=True)
    assert (loaded.name, loaded.dtype, loaded.labels) == ("someone/shots", "int8", LABELS)
    assert opened("someone/shots", local_files_only=True, dtype="fp32").dtype == "fp32"


def test_external_data_behind_the_links_of_the_cache(tmp_path: Path, hub_cache: Path) -> None:
    files = tmp_path / "files"
    write_sidecars(files)
    TinyGraph().save(
        files / "onnx" / "model.onnx",
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=80,
    )
    cache_repository(hub_cache, "someone/large", files)
    loaded = opened("someone/large", local_files_only=True)
    plain = opened(write_exported_model(tmp_path / "plain"))
    assert logits_at_one(loaded) == logits_at_one(plain)


def test_a_hub_id_with_weights_only(tmp_path: Path, hub_cache: Path) -> None:
    write_sidecars(tmp_path / "files")
    (tmp_path / "files" / "pytorch_model.bin").write_bytes(b"weights")
    cache_repository(hub_cache, "facebook/timesformer", tmp_path / "files")
    message = refusal("facebook/timesformer", InvalidOptionError, local_files_only="no")
    assert message == "`local_files_only` is 'no'; it must be True or False"
    message = refusal("facebook/timesformer", ModelNotFoundError, local_files_only=True)
    assert "export it first: timesformer-export --model facebook/timesformer" in message


def test_a_mistyped_path_that_looks_like_a_hub_id(hub_cache: Path) -> None:
    message = refusal("models/missing", ModelNotFoundError, local_files_only=True)
    assert "Hub" in message
    assert "there is no folder or file models/missing here" in message


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub is not asked."""

    def fail(*_: object, local_files_only: bool = False, **__: object) -> None:
        raise HubError("nothing is cached") if local_files_only else AssertionError("it was asked")

    monkeypatch.setattr(hub, "list_files", fail)
    monkeypatch.setattr(hub, "download", fail)


@pytest.mark.usefixtures("no_network")
def test_a_path_that_exists_is_never_looked_up_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_exported_model(Path("owner/name"))
    assert opened("owner/name").labels == LABELS


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    "name",
    [
        *("demo/shot-transitions-dividd-onnx", "demo/x/y", "./demo/x", "../x/y", "~/x", "/no/such"),
        *("demo\\x", "a\\b", "a/b.onnx", "a/b.ONNX", "a/b.onnx_data", "a/b.tar", "a/"),
    ],
)
def test_what_can_only_be_a_path_is_never_looked_up_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_exported_model(Path("demo/shot-transitions-divided-onnx"))
    message = refusal(name, ModelNotFoundError)
    assert message.startswith(f"{name}: there is no such folder or file")


def test_a_hub_id_whose_owner_is_also_a_folder_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub_cache: Path
) -> None:
    """What was downloaded before is found all the same, and the rest with a revision."""
    monkeypatch.chdir(tmp_path)
    cache_repository(hub_cache, "someone/shots", write_exported_model(tmp_path / "files"))
    (tmp_path / "someone").mkdir()
    assert opened("someone/shots").labels == LABELS
    asked: list[str | None] = []

    def answer(_: str, *, revision: str | None = None, local_files_only: bool) -> list[str]:
        if not local_files_only:
            asked.append(revision)
        raise HubError("nothing is there")

    monkeypatch.setattr(hub, "list_files", answer)
    assert "give a `revision`, such as main, to look on the Hub" in refusal(
        "someone/other", ModelNotFoundError
    )
    assert not asked
    refusal("someone/other", HubError, revision="main")
    assert asked == ["main"]


# --- What the graph and its files must say -------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            TinyGraph(shape=("b", FRAMES, 5, SIZE, SIZE)),
            "axis 2 must hold the channels: export it as [batch, frames, channels, height, width]",
        ),
        (TinyGraph(shape=(2, FRAMES, 3, SIZE, SIZE)), "its batch size is fixed at 2"),
        (
            TinyGraph(shape=("b", FRAMES, 3, 30, 40)),
            "it takes frames of 30x40 (height x width), but preprocessor_config.json makes 24x24",
        ),
        (TinyGraph(shape=("b", FRAMES, 1, SIZE, SIZE)), "it takes 1 channels, but"),
        (
            TinyGraph(input_type=TensorProto.DOUBLE),
            "its input pixel_values is a tensor(double); only float32, float16 and uint8 can "
            "run here",
        ),
        (
            TinyGraph(input_type=TensorProto.UINT8, shape=("b", FRAMES, "h", "w", 1)),
            "axis 4 must hold the channels: export it as [batch, frames, height, width, 3]",
        ),
        (
            TinyGraph(input_type=TensorProto.UINT8, shape=("b", FRAMES, 30, 40, 3)),
            "height and width of uint8 frames must be dynamic",
        ),
    ],
)
def test_graphs_that_do_not_fit(tmp_path: Path, graph: TinyGraph, message: str) -> None:
    write_sidecars(tmp_path)
    path = graph.save(tmp_path / "model.onnx")
    text = refusal(path, InvalidModelError)
    assert text.startswith(f"{path}: ")
    assert message in text


def test_a_graph_that_is_no_video_model(tmp_path: Path) -> None:
    from timesformer_runtime.model.device import _PROBE  # noqa: PLC0415  # takes one number

    assert "its inputs are x [1]; a video model has one, with 5 dimensions" in refusal(
        _PROBE, InvalidModelError
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (model_config(id2label={"0": "a", "1": "b"}), "it has 4 classes, but config.json names 2"),
        (model_config(id2label={"0": "a", "2": "b"}), "id2label has 2 labels but none for index 1"),
        (model_config(id2label={"zero": "a"}), "id2label has an index that is not an integer"),
        (model_config(id2label=["a", "b"]), "it must map class indices to names"),
        (model_config(problem_type="guess"), "problem_type is 'guess'; it must be one of"),
        (
            model_config(id2label=None, label2id={"a": 0, "b": 0}),
            "label2id has two names for class 0: 'a' and 'b'",
        ),
        (model_config(id2label=None, label2id={"a": 0, "b": "x"}), "label2id has an index that"),
        (model_config(id2label=None, label2id=7), "it must map names to class indices"),
    ],
)
def test_configurations_that_do_not_fit(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    write_sidecars(tmp_path, config)
    TinyGraph().save(tmp_path / "model.onnx")
    assert message in refusal(tmp_path, InvalidModelError)


@pytest.mark.parametrize("frames", [None, 0, "8", True, 8.5, 10**9])
def test_open_frames_need_the_configuration(tmp_path: Path, frames: object) -> None:
    write_sidecars(tmp_path, model_config(num_frames=frames))
    TinyGraph(shape=("b", "t", 3, SIZE, SIZE)).save(tmp_path / "model.onnx")
    message = refusal(tmp_path, InvalidModelError)
    assert f"num_frames in config.json is {frames!r}: set it there" in message


def test_open_frames_may_be_written_as_a_float(tmp_path: Path) -> None:
    write_sidecars(tmp_path, model_config(num_frames=float(FRAMES)))
    TinyGraph(shape=("b", "t", 3, SIZE, SIZE)).save(tmp_path / "model.onnx")
    assert opened(tmp_path).input.num_frames == FRAMES


def test_a_clip_beyond_any_model_is_refused_before_there_is_one(tmp_path: Path) -> None:
    write_sidecars(tmp_path, preprocessor=preprocessor_config(size=8192))
    TinyGraph(shape=("b", FRAMES, 3, "h", "w")).save(tmp_path / "model.onnx")
    message = refusal(tmp_path, InvalidModelError)
    assert "a clip of 4 frames of 8192x8192 pixels would take more than 2048 MB" in message
    assert "or correct size and crop_size" in message


def test_static_frames_win_over_the_configuration(tmp_path: Path) -> None:
    write_sidecars(tmp_path, model_config(num_frames=16))
    TinyGraph().save(tmp_path / "model.onnx")
    assert opened(tmp_path).input.num_frames == FRAMES


def test_labels_from_their_indices_alone(tmp_path: Path) -> None:
    config = model_config(label2id={"b": 1, "a": 0, "d": 3, "c": 2.0})
    del config["id2label"]
    write_sidecars(tmp_path, config)
    TinyGraph().save(tmp_path / "model.onnx")
    assert opened(tmp_path).labels == ("a", "b", "c", "d")


def test_without_labels(tmp_path: Path) -> None:
    write_sidecars(tmp_path, model_config(id2label=None))
    TinyGraph().save(tmp_path / "model.onnx")
    assert opened(tmp_path).labels == ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")


def test_without_preprocessing(tmp_path: Path) -> None:
    path = TinyGraph().save(tmp_path / "model.onnx")
    assert "put the checkpoint's preprocessor_config.json beside it" in refusal(
        path, InvalidModelError
    )


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("config.json", "{", "config.json is not valid JSON"),
        ("config.json", "[1]", "config.json holds a list, not a JSON object"),
        ("preprocessor_config.json", "\udcff".encode("utf-8", "surrogateescape"), "read as UTF-8"),
        ("preprocessor_config.json", '{"resample": 77}', "resample is 77"),
    ],
)
def test_broken_files_beside(tmp_path: Path, file: str, text: str | bytes, message: str) -> None:
    write_exported_model(tmp_path)
    (tmp_path / file).write_bytes(text.encode() if isinstance(text, str) else text)
    assert message in refusal(tmp_path, InvalidModelError)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"timesformer_onnx.format": "2"}, "has format '2'; this version reads '1': pip install"),
        ({"config": "{"}, "its metadata entry 'config' is not valid JSON"),
        ({"config": "[]"}, "its metadata entry 'config' holds a list"),
        ({"frame_sampling": {"method": "dense"}}, "it wants frame sampling 'dense'"),
        ({"golden": {"generator": "other-v9"}}, "generator 'other-v9'; this version knows"),
        (
            {"golden": {"generator": "timesformer-golden-v1", "seed": 0, "shape": [4, 24]}},
            "the golden check in the file's metadata is broken",
        ),
    ],
)
def test_metadata_that_does_not_fit(entries: dict[str, Any], message: str) -> None:
    values = {**own_metadata(), **own_metadata(**entries)}
    model = TinyGraph(metadata=values).proto().SerializeToString()
    assert message in refusal(model, InvalidModelError)


def test_large_metadata_survives() -> None:
    labels = {str(index): f"{'long' * 500} {index}" for index in range(4)}
    values = own_metadata(config=json.dumps(model_config(id2label=labels)))
    loaded = opened(TinyGraph(metadata=values).proto().SerializeToString())
    assert loaded.labels == tuple(labels.values())


@pytest.mark.parametrize("saturates", [True, False])
def test_products_that_are_not_of_8_bits_are_announced(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    saturates: bool,
) -> None:
    monkeypatch.setattr(cpu, "saturates_int8", lambda: saturates)
    model = write_exported_model(tmp_path, ("fp32", "int8"))
    for dtype in ("int8", "fp32"):
        options: dict[str, Any] = {"device": "cpu", "dtype": dtype, "threads": 1, "revision": None}
        load(str(model), **options, local_files_only=True, session_options={})
        said = capsys.readouterr().err
        assert f": {dtype}" in said
        assert ("in 16-bit products" in said) == (saturates and dtype == "int8")
    seven = TinyGraph(metadata=own_metadata(dtype="int8", int8_target="avx2"))
    seven.save(tmp_path / "seven" / "model_int8.onnx")
    load(
        str(tmp_path / "seven"),
        **options | {"dtype": "int8"},
        session_options={},
        local_files_only=True,
    )
    said = capsys.readouterr().err
    assert ": int8 with weights of 7 bits" in said
    assert "in 16-bit products" not in said
    assert ("--int8-target avx2" in diagnose().facts["int8"].text) == saturates
