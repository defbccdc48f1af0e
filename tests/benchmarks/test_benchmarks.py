"""Tests of the benchmarks: of all that they compute, with no test that depends on a time."""

from __future__ import annotations

import dataclasses
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from timesformer_runtime.model import cpu

from tests import tiny_graphs
from tests.benchmarks import (
    attention_types,
    choices,
    guards,
    markdown,
    plot,
    results_file,
    speed,
    tables,
)
from tests.benchmarks.bench import Bench
from tests.benchmarks.competitors import Competitor
from tests.benchmarks.contest import Entry, contest
from tests.benchmarks.figures import LogitsAgreement, agreement, ratio
from tests.benchmarks.made_files import MakingError, made, stamp_of
from tests.benchmarks.processes import Worker, WorkerError, environment
from tests.benchmarks.rows import Row, fastest, number_row, time_rows
from tests.benchmarks.turns import take_turns
from tests.benchmarks.whole_process import cost


def test_a_ratio_compares_neighbours() -> None:
    # The machine is ten times slower in the second round, for both competitors.
    assert ratio([1.0, 10.0, 1.2], [2.0, 20.0, 2.4]).middle == pytest.approx(0.5)


def test_a_ratio_tells_how_far_the_rounds_are_apart() -> None:
    found = ratio([1, 2, 3, 4, 5], [10, 10, 10, 10, 10])
    assert (found.low, found.middle, found.high) == pytest.approx((0.2, 0.3, 0.4))
    assert ratio([3], [4]) == ratio([3, 3], [4, 4])


def test_series_of_different_length_are_not_compared() -> None:
    with pytest.raises(ValueError, match="argument"):
        ratio([1.0], [1.0, 2.0])


def test_agreement_is_of_what_distinguishes_the_clips() -> None:
    rng = np.random.default_rng(0)
    expected = rng.standard_normal((8, 5))
    same = agreement(expected, expected)
    assert same.cosine == pytest.approx(1.0)
    assert (same.top1, same.clips) == (1.0, 8)
    # A large offset that all clips share hides nothing.
    swapped = agreement(expected + 100, expected[::-1] + 100)
    assert swapped.cosine < 0.5
    assert swapped.top1 < 1


def test_agreement_of_frames() -> None:
    expected = np.random.default_rng(0).standard_normal((4, 3, 5))
    noise = np.random.default_rng(1).standard_normal(expected.shape)
    assert 0.99 < agreement(expected, expected + 0.01 * noise).cosine < 1


@pytest.mark.parametrize(("expected", "found"), [((4, 5), (4, 6)), ((1, 5), (1, 5))])
def test_agreement_needs_equal_shapes_and_two_clips(
    expected: tuple[int, ...], found: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        agreement(np.ones(expected), np.ones(found))


def test_every_competitor_runs_once_a_round() -> None:
    order: list[str] = []

    def run(name: str) -> float:
        order.append(name)
        return ord(name)

    seconds = take_turns([lambda: run("a"), lambda: run("b"), lambda: run("c")], 20)
    assert seconds == [[97.0] * 20, [98.0] * 20, [99.0] * 20]
    rounds = ["".join(order[i : i + 3]) for i in range(0, 60, 3)]
    assert {"".join(sorted(each)) for each in rounds} == {"abc"}
    assert len(set(rounds)) > 1  # the order changes


def _entry(*seconds: float, problem: str = "") -> Entry:
    return Entry(file_mb=1.0, seconds=list(seconds), problem=problem)


def test_rows_leave_out_what_was_not_measured() -> None:
    entries = {"int8": _entry(1, 1), "other": _entry(4, 4), "broken": _entry(problem="no compiler")}
    table = time_rows(entries, "int8", {"other": 0.3, "broken": 0.3, "absent": 0.3})
    assert [(row.against, row.value, row.reached) for row in table] == [("other", 0.25, True)]
    assert time_rows(entries, "broken", {"other": 0.3}) == []


def test_the_fastest_is_chosen_by_its_median() -> None:
    entries = {"a": _entry(1, 5, 5), "b": _entry(4, 4, 4), "c": _entry(problem="broken")}
    assert fastest(entries, ["a", "b", "c", "d"]) == "b"
    assert fastest(entries, ["c", "d"]) is None


def test_what_is_wanted_is_reached_at_the_limit_and_not_above() -> None:
    assert number_row("memory", "int8", [259, 260, 300], "MB", 260).reached is True
    assert number_row("memory", "int8", [261], "MB", 260).reached is False
    assert number_row("memory", "int8", [261], "MB", None).reached is None


def test_the_results_file_keeps_its_other_parts(tmp_path: Path) -> None:
    file = tmp_path / "results" / "machine.json"
    row = Row("time", "int8", "other", 0.123456789, "x", 0.5, 0.1, 0.2)
    entry = dataclasses.replace(_entry(1.0, 2.0), agreement=LogitsAgreement(0.5, 1.0, 8))
    results_file.write_part(file, "speed", {"rows": [dataclasses.asdict(row)]})
    results_file.write_part(file, "whole", {"competitors": {"int8": dataclasses.asdict(entry)}})
    parts = results_file.read(file)["parts"]
    assert Row.from_dict(parts["speed"]["rows"][0]) == dataclasses.replace(row, value=0.12346)
    assert Entry.from_dict(parts["whole"]["competitors"]["int8"]) == entry
    assert parts["speed"]["versions"]["onnxruntime"]
    assert [path.name for path in file.parent.iterdir()] == ["machine.json"]


def test_the_versions_of_the_peers_are_those_that_are_installed() -> None:
    versions = results_file.peer_versions()
    assert versions.keys() == {"openvino", "nncf"}
    assert all(re.fullmatch(r"[\d.]+", version) for version in versions.values())


def test_processors_without_vnni_have_goals_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = dataclasses.replace(_entry(2, 2), load_seconds=[1.0], load_mb=[100.0], run_mb=[200.0])
    entries = {
        name: dataclasses.replace(entry, cpu_seconds=[spent, spent])
        for name, spent in {
            "int8": 3.0,
            "int8, weights of 8 bits": 3.5,
            "fp32": 5.0,
            "plain int8": 4.0,
            "plain fp32": 6.25,
            "PyTorch fp32": 8.0,
        }.items()
    }
    monkeypatch.setattr(speed, "saturates_int8", lambda: True)
    rows = speed.rows(entries)
    found = {
        (row.measure, row.ours, row.against): (row.value, row.wanted)
        for row in rows
        if row.wanted is not None and row.measure != "file"
    }
    assert found == {
        ("processor time of a clip", "int8", "plain int8"): (0.75, 0.88),
        ("processor time of a clip", "int8", "PyTorch fp32"): (0.375, 0.55),
        ("processor time of a clip", "fp32", "plain fp32"): (0.8, 0.82),
        ("loading", "int8", "plain int8"): (1.0, 0.5),
        ("loading", "int8, weights of 8 bits", "plain int8"): (1.0, 1.0),
        ("memory after a run", "int8", ""): (200.0, 260.0),
        ("memory after a run", "int8, weights of 8 bits", ""): (200.0, 260.0),
    }
    monkeypatch.setattr(speed, "saturates_int8", lambda: False)
    assert "processor time of a clip" not in {row.measure for row in speed.rows(entries)}


def test_attention_types_and_whole_programs_have_no_goals_of_vnni_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = {
        name: dataclasses.replace(_entry(2, 2), cpu_seconds=[spent, spent])
        for name, spent in {"joint int8": 3.0, "joint plain int8": 4.0}.items()
    }
    monkeypatch.setattr(attention_types, "saturates_int8", lambda: True)
    found = [(row.measure, row.value, row.wanted) for row in attention_types.rows(entries)]
    assert found == [("time of a clip", 1.0, None), ("processor time of a clip", 0.75, 0.88)]
    monkeypatch.setattr(attention_types, "saturates_int8", lambda: False)
    assert [row.wanted for row in attention_types.rows(entries)] == [0.8]


@pytest.mark.parametrize(
    ("saturates", "expected"), [(False, "model_int8.onnx"), (True, "model_int8_avx2.onnx")]
)
def test_all_parts_measure_the_int8_file_that_the_runtime_takes(
    saturates: bool, expected: str, tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("model.onnx", "model_int8.onnx", "model_int8_avx2.onnx"):
        tiny_graphs.TinyGraph().save(tmp_path / "onnx" / name)
    for method in ("checkpoint", "ours", "plain"):
        monkeypatch.setattr(Bench, method, lambda *_: tmp_path)
    monkeypatch.setattr(cpu, "saturates_int8", lambda: saturates)
    monkeypatch.setattr(speed, "saturates_int8", lambda: saturates)
    measured = [
        *choices.competitors(bench),
        *(one for one in attention_types.competitors(bench) if one.engine == "ours"),
        *(one for one in speed.basic_competitors(bench) if one.name == speed.OURS),
    ]
    assert len(measured) > 8
    assert {one.model.name for one in measured} == {expected}


@pytest.mark.parametrize(
    ("name", "sets", "expected"),
    [
        ("Intel(R) Xeon(R) Platinum 8488C CPU @ 2.40GHz", ["amx_int8", "avx512_vnni"],
         "intel-xeon-platinum-8488c-amx-4-threads"),
        ("AMD EPYC 9R14", ["avx512_vnni"], "amd-epyc-9r14-vnni-4-threads"),
        ("AMD EPYC 7R13", ["avx2"], "amd-epyc-7r13-avx2-4-threads"),
        ("aarch64", None, "aarch64-4-threads"),
    ],
)  # fmt: skip
def test_file_names_of_machines(name: str, sets: list[str] | None, expected: str) -> None:
    assert results_file.slug({"cpu": name, "instruction_sets": sets, "threads": 4}) == expected


def test_a_note_about_the_machine_is_in_its_file_and_in_its_name(tmp_path: Path) -> None:
    note = "CPUID masked to AVX2"
    machine = results_file.hardware(note)
    assert results_file.slug(machine) == (
        f"{results_file.slug(results_file.hardware())}-cpuid-masked-to-avx2"
    )
    results_file.write_part(tmp_path / "machine.json", "speed", {"competitors": {}}, note)
    results = results_file.read(tmp_path / "machine.json")
    assert results["hardware"] == machine
    assert f"{machine['cpu']}, {note} (" in list(markdown.lines(results))[-1]
    assert f"{note}, {machine['threads']} threads" in plot.title(machine)


def test_tables_show_values_limits_and_problems() -> None:
    rows = [
        Row("time of a clip", "int8", "plain", 0.812, "x", 0.75, 0.8, 0.83),
        Row("file", "int8", "", 124.6, "MB", 126.0),
        Row("processor time of a clip", "int8", "plain", 0.9, "x", 0.88, 0.89, 0.91),
    ]
    text = _text(tables.comparison(rows, "Title"))
    assert "1.23 times as fast │ 1.20 to 1.25 │ at least 1.33 times as fast │" in text
    assert "NO" in text
    assert "125 MB" in text
    assert "90% of it │ 89% to 91% │ at most 88% of it │" in re.sub(" +", " ", text)
    text = _text(tables.measurements({"broken": _entry(problem="no compiler")}, "Title"))
    assert "not measured: no compiler" in text


def _text(table: object) -> str:
    console = Console(width=160, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


_WRITE = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"


def _make(target: Path, text: str, source: Path) -> Path:
    return made(target, [sys.executable, "-c", _WRITE, "{}", text], [source], threads=1)


def test_files_are_made_again_when_a_source_changes(tmp_path: Path) -> None:
    source, target = tmp_path / "source.py", tmp_path / "made" / "model.onnx"
    source.write_text("1")
    _make(target, "first", source)
    target.write_text("kept")
    assert _make(target, "first", source).read_text() == "kept"
    source.write_text("2")
    assert _make(target, "first", source).read_text() == "first"
    assert _make(target, "second", source).read_text() == "second"
    assert sorted(path.name for path in target.parent.iterdir()) == [
        "model.onnx", stamp_of(target).name,
    ]  # fmt: skip


def test_a_command_that_fails_leaves_only_its_log(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    with pytest.raises(MakingError, match=r"model.onnx cannot be made: ValueError: too big"):
        made(target, [sys.executable, "-c", "raise ValueError('too big')"], [], threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx.log"]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    shape = (3, tiny_graphs.FRAMES, 3, tiny_graphs.SIZE, tiny_graphs.SIZE)
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    np.save(tmp_path / "clips.npy", values)
    return tmp_path / "clips.npy"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(
        work=tmp_path / "work", layers=1, rounds=2, starts=1, clips=3, threads=1,
        announce=lambda _: None,
    )  # fmt: skip


def test_a_contest_measures_what_runs_and_says_what_does_not(
    tmp_path: Path, clips: Path, bench: Bench
) -> None:
    right = tiny_graphs.TinyGraph().save(tmp_path / "right" / "model.onnx")
    wrong = tiny_graphs.TinyGraph(scale=-1).save(tmp_path / "wrong" / "model.onnx")
    broken = tmp_path / "broken" / "model.onnx"
    broken.parent.mkdir()
    broken.write_bytes(b"no model")
    entries = contest(
        [
            Competitor("reference", "ort", right, timed=False),
            Competitor("same", "ours", right, reference="reference"),
            Competitor("other", "ort", wrong, reference="reference"),
            Competitor("broken", "ours", broken, reference="reference"),
        ],
        bench,
        clips,
    )
    same, other = entries["same"].agreement, entries["other"].agreement
    assert same is not None
    assert same.cosine == pytest.approx(1.0)
    assert other is not None
    assert other.cosine < 0
    assert "broken/model.onnx" in entries["broken"].problem
    assert entries["broken"].seconds == []
    assert entries["reference"].seconds == []
    for name in ("same", "other"):
        entry = entries[name]
        assert len(entry.cpu_seconds) == 2
        assert min(entry.cpu_seconds) > 0
        assert (len(entry.seconds), len(entry.load_seconds), len(entry.run_mb)) == (2, 1, 1)
        assert entry.median > 0
        assert 0 <= entry.load_mb[0] <= entry.run_mb[0] < 100
    assert entries["same"].file_mb == pytest.approx(right.stat().st_size / 1e6)


def test_a_worker_gives_the_model_the_clips_as_they_are(
    tmp_path: Path, clips: Path, bench: Bench
) -> None:
    model = tiny_graphs.TinyGraph().save(tmp_path / "model.onnx")
    with Worker(Competitor("tiny", "ours", model), clips, 1, bench.logs) as worker:
        logits = np.array(worker.logits())[:, 0]
        assert worker.seconds(batch=5) > 0
    expected = [tiny_graphs.expected_logits(clip, channel_axis=1) for clip in np.load(clips)]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_worker_that_dies_is_an_error_with_its_last_words(
    tmp_path: Path, clips: Path, bench: Bench
) -> None:
    model = tiny_graphs.TinyGraph(shape=("batch", tiny_graphs.FRAMES, 3, 9, 9)).save(
        tmp_path / "model.onnx"
    )
    with (
        Worker(Competitor("tiny", "ours", model), clips, 1, bench.logs) as worker,
        pytest.raises(WorkerError, match=r"tiny stopped: .*InvalidModelError"),
    ):
        worker.seconds()


def test_the_cost_of_a_process_is_its_own(tmp_path: Path) -> None:
    # Linux counts the memory of a parent process as part of its child's peak: a small parent.
    command = [sys.executable, "-c", "import time; block = b'x' * 300_000_000; time.sleep(0.2)"]
    program = (
        "import json, pathlib, sys; from tests.benchmarks.whole_process import cost; "
        "print(json.dumps(cost(json.loads(sys.argv[1]), 1, pathlib.Path(sys.argv[2]))))"
    )
    arguments = [sys.executable, "-c", program, json.dumps(command), str(tmp_path / "log")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    seconds, megabytes = json.loads(done.stdout)
    assert seconds >= 0.2
    assert 300 < megabytes < 400
    with pytest.raises(MakingError, match="oh"):
        cost([sys.executable, "-c", "raise SystemExit('oh')"], 1, tmp_path / "log")


def test_processes_get_the_threads_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    variables = environment(3)
    assert variables["OMP_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in variables


def _results(*rows: Row, part: str = "peers") -> dict[str, Any]:
    entries = {"slow": _entry(3, 1, 2), "int8": _entry(1, 1), "broken": _entry(problem="x")}
    measured = {name: dataclasses.asdict(entry) for name, entry in entries.items()}
    return {
        "hardware": {
            "cpu": "Some CPU",
            "instruction_sets": ["avx2"],
            "threads": 2,
            "memory_gb": 24.6,
        },
        "parts": {
            part: {
                "versions": {"onnxruntime": "1.2.3"},
                "peer_versions": {"openvino": "4.5"},
                "rows": [dataclasses.asdict(row) for row in rows],
                "competitors": measured,
            }
        },
    }


@pytest.mark.parametrize("part", ["peers", "speed"])
def test_the_readme_table_marks_what_was_not_reached(part: str) -> None:
    rows = [
        Row("time of a clip", "int8", "plain", 0.812, "x", 0.75),
        Row("loading", "int8", "plain", 0.4, "x", 0.5),
        Row("memory after loading", "int8", "", 100.0, "MB", None),
        Row("file", "int8", "", 124.6, "MB", 126.0),
        Row("its peak memory", "int8", "plain", 0.31, "x", 0.35),
    ]
    assert list(markdown.lines(_results(*rows, part=part))) == [
        "| ours | against | measured | wanted |",
        "|---|---|---|---|",
        "| int8 | plain | **1.23 times as fast** | at least 1.33 times as fast |",
        "| int8, loading | plain | 2.5 times as fast | at least 2.0 times as fast |",
        "| int8, file | - | 125 MB | at most 126 MB |",
        "| int8, its peak memory | plain | 31% of it | at most 35% of it |",
        "",
        "Some CPU (avx2), 2 threads, 25 GB; onnxruntime 1.2.3, openvino 4.5.",
    ]


def test_the_plot_shows_what_was_measured_the_fastest_first() -> None:
    assert plot.bars(_results()) == [("int8", 1.0), ("slow", 2.0)]
    with pytest.raises(KeyError):
        plot.bars({"parts": {}})


def test_the_plot_can_show_processor_time() -> None:
    results = _results()
    for name, spent in (("int8", 3.0), ("slow", 2.5)):
        results["parts"]["peers"]["competitors"][name]["cpu_seconds"] = [spent]
    assert plot.bars(results, "cpu_seconds") == [("slow", 2.5), ("int8", 3.0)]
    assert "processor time" in plot.title(results["hardware"], "cpu_seconds")


@pytest.mark.parametrize("changes", guards.SWITCHES.values(), ids=list(guards.SWITCHES))
def test_each_guard_can_be_switched_off(changes: dict[str, object]) -> None:
    with guards.switched(changes):
        for name, value in changes.items():
            assert pkgutil.resolve_name(f"timesformer_runtime.video.{name}") is value
