"""The measurement of small models: its structure and its answers, never its times."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from timesformer_runtime.bench import measure as module
from timesformer_runtime.bench.measure import (
    CLIPS,
    LEAST_ROUNDS,
    MOST_ROUNDS,
    Case,
    Plan,
    Variant,
)
from timesformer_runtime.errors import InvalidOptionError
from timesformer_runtime.model.locate import find_model
from timesformer_runtime.model.memory import Memory

from tests.tiny_graphs import TinyGraph, class_weights, write_exported_model, write_sidecars


def variant(folder: Path, dtype: str) -> Variant:
    return Variant.of(find_model(str(folder), device="cpu", dtype=dtype))


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The variants fp32 and fp16 are equal, int8 has other weights, and q4 cannot be loaded."""
    folder = tmp_path_factory.mktemp("bench") / "shots"
    TinyGraph().save(folder / "onnx" / "model.onnx")
    TinyGraph().save(folder / "onnx" / "model_fp16.onnx")
    TinyGraph(scale=-1.0).save(folder / "onnx" / "model_int8.onnx")
    TinyGraph(shape=("batch", 4, 5, 24, 24)).save(folder / "onnx" / "model_q4.onnx")
    write_sidecars(folder)
    return folder


def test_each_case_is_measured(shots: Path) -> None:
    variants = [variant(shots, dtype) for dtype in ("fp32", "fp16", "int8")]
    steps: list[tuple[str, int, int | None]] = []
    plan = Plan(variants, threads=(1, 2), cores=2, seconds=0)
    measured, failures = module.measure(plan, lambda *step: steps.append(step))
    assert failures == []
    cases = [(one.dtype, one.threads) for one in measured]
    assert cases == [*itertools.product(("fp32", "fp16", "int8"), (1, 2))]
    for one in measured:
        assert len(one.latencies) == len(one.rates) == LEAST_ROUNDS
        assert 0 < one.median <= max(map(max, one.latencies))
        assert one.p95 >= min(map(min, one.latencies))
        assert one.load > 0
        assert one.clips_a_second > 0
        assert one.runs_at_once == (2 if one.threads == 1 else 1)
        assert one.memory is None or one.memory > 1_000_000
    fp32, fp16, int8 = measured[::2]
    assert fp32.agreement is None
    assert fp16.agreement is not None
    assert fp16.agreement.passed
    assert fp16.agreement.clips == CLIPS
    assert int8.agreement is not None
    assert not int8.agreement.passed
    assert [done for _, done, _ in steps] == [*range(len(steps))]
    assert steps[-1][2] == len(steps)


def test_the_clips_differ_and_the_values_are_the_models(shots: Path) -> None:
    plan = Plan([variant(shots, "fp32"), variant(shots, "int8")], threads=(1,), cores=1, seconds=0)
    (fp32, int8), _ = module.measure(plan, lambda *_: None)
    values = np.array(fp32.values)
    assert len(np.unique(values.round(6), axis=0)) == CLIPS
    opposite = 2 * np.array([0.1, -0.2, 0.3, 0.0]) - values  # of the weights: the bias stays
    np.testing.assert_allclose(int8.values, opposite, atol=1e-5)
    assert class_weights().any()


def test_the_agreement_does_not_depend_on_time_or_threads(shots: Path) -> None:
    """The gate's limits are for that many clips: of few clips, one label is a large share."""
    variants = [variant(shots, dtype) for dtype in ("fp32", "int8")]
    found = []
    for seconds, threads in ((0, (1,)), (0, (1, 2)), (3, (2,))):
        measured, _ = module.measure(Plan(variants, threads, 2, seconds), lambda *_: None)
        found += [one.agreement for one in measured if one.dtype == "int8"]
    assert len(found) == 4
    for one in found:
        assert one is not None
        assert (one.clips, one.top1) == (CLIPS, found[0].top1 if found[0] else None)


def test_a_variant_that_fails_does_not_stop_the_others(shots: Path) -> None:
    variants = [variant(shots, "fp32"), variant(shots, "q4")]
    measured, failures = module.measure(Plan(variants, (1,), 1, 0), lambda *_: None)
    assert [one.dtype for one in measured] == ["fp32"]
    (failure,) = failures
    assert failure.case.variant.dtype == "q4"
    assert "axis 2 must hold the channels" in failure.reason


def test_the_rounds_follow_from_the_time() -> None:
    assert module._rounds(done=1, seconds=1.0, left=0.0) == LEAST_ROUNDS
    assert module._rounds(done=1, seconds=1.0, left=8.5) == 9
    assert module._rounds(done=4, seconds=4.0, left=-3.0) == LEAST_ROUNDS
    assert module._rounds(done=1, seconds=0.01, left=60.0) == MOST_ROUNDS


def test_all_at_once_only_where_the_memory_suffices(monkeypatch: pytest.MonkeyPatch) -> None:
    large = Variant("fp32", Path("model.onnx"), (), 500_000_000)
    cases = [Case(large, threads) for threads in (1, 2)]
    for usable, groups in ((None, 1), (8_000_000_000, 1), (1_000_000_000, 2)):
        memory = Memory(None, usable, None, None)
        monkeypatch.setattr(module, "machine_memory", lambda memory=memory: memory)
        found = module._groups(cases)
        assert len(found) == groups
        assert [*itertools.chain(*found)] == cases


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_time_that_is_not_allowed(seconds: float) -> None:
    with pytest.raises(InvalidOptionError, match=f"`seconds` is {seconds}; it must be a number"):
        Plan((), (1,), 1, seconds)


@pytest.mark.parametrize("content", [b"", b"no model"])
def test_the_files_of_a_damaged_variant_are_those_that_are_there(
    content: bytes, tmp_path: Path
) -> None:
    folder = write_exported_model(tmp_path / "shots")
    damaged = folder / "onnx" / "model_fp16.onnx"
    damaged.write_bytes(content)
    found = variant(folder, "fp16")
    assert (found.files, found.size) == ((damaged,), len(content))


def test_the_size_counts_weights_in_other_files(tmp_path: Path) -> None:
    folder = write_exported_model(tmp_path / "shots")
    TinyGraph().save(
        folder / "onnx" / "model_fp16.onnx",
        save_as_external_data=True,
        location="model_fp16.onnx_data",
        size_threshold=16,
    )
    found = variant(folder, "fp16")
    names = {"model_fp16.onnx", "model_fp16.onnx_data"}
    assert {file.name for file in found.files} == names
    assert found.size == sum((folder / "onnx" / name).stat().st_size for name in names)
