"""Measures variants in turn, each in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from timesformer_runtime.child_process import ChildProcess
from timesformer_runtime.errors import InvalidModelError, InvalidOptionError, TimesformerError
from timesformer_runtime.model.agreement import incomparable
from timesformer_runtime.model.gate import VariantFidelity
from timesformer_runtime.model.gate import measure as compare
from timesformer_runtime.model.graph_file import source_of_file
from timesformer_runtime.model.locate import ModelFiles
from timesformer_runtime.model.memory import machine_memory
from timesformer_runtime.model.settings import SessionSettings

LEAST_ROUNDS, MOST_ROUNDS = 5, 15
CLIPS = 16  # for the agreement, however many rounds there are: the gate's limits are for so many
MOST_SECONDS = 24 * 3600.0
_CHILD = "timesformer_runtime.bench.child:serve"
_BURST = 0.1  # seconds; a run that takes less is repeated
_LONGEST_ANSWER = 1800.0  # seconds; loading alone may take 600
# Dtypes of other exporters, and the dtype whose limits of the gate hold for them.
_LIMITS_OF = {"uint8": "int8", "q8": "int8", "q4f16": "q4", "bnb4": "q4"}

# A process with a model takes about twice the model's files, and this for Python and its libraries.
_MEMORY_OF_PYTHON = 200_000_000


@dataclasses.dataclass(frozen=True)
class Variant:
    """A variant to measure.

    Attributes:
        dtype: Its precision, or the name of its file where that is not known.
        graph: The ``.onnx`` file.
        files: The file, and those that hold its weights.
        size: The bytes of all of these files.
    """

    dtype: str
    graph: Path
    files: tuple[Path, ...]
    size: int

    @classmethod
    def of(cls, files: ModelFiles) -> Self:
        """Finds all files of a variant, and their size.

        A damaged graph names no other files; why it cannot run, its process says.
        """
        graph = Path(os.fsdecode(files.graph))
        name = files.dtype or graph.name
        try:
            versions = source_of_file(graph, str(graph), maps=False).files
        except InvalidModelError:
            return cls(name, graph, (graph,), graph.stat().st_size)
        size = sum(version.size for version in versions)
        return cls(name, graph, tuple(file.path for file in versions), size)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The measurement to make: its variants, threads and time.

    Attributes:
        variants: The variants.
        threads: The numbers of threads for one clip.
        cores: How many threads may run at once in all.
        seconds: How long the measurement may take, about.
        device: The name of the device, as of the classifier.
        settings: The device or the providers, and options of the session, save the threads.

    Raises:
        InvalidOptionError: The time is not a number in its range.
    """

    variants: Sequence[Variant]
    threads: Sequence[int]
    cores: int
    seconds: float
    device: str = "cpu"
    settings: SessionSettings = dataclasses.field(
        default_factory=lambda: SessionSettings(device="cpu")
    )

    def __post_init__(self) -> None:
        if not 0 <= self.seconds <= MOST_SECONDS:
            raise InvalidOptionError(
                f"`seconds` is {self.seconds}; it must be a number from 0 to {MOST_SECONDS:g}"
            )

    def cases(self) -> list[Case]:
        """Lists every variant with every number of threads."""
        return [Case(variant, threads) for variant in self.variants for threads in self.threads]

    def runs_at_once(self, case: Case) -> int:
        """Counts the clips that keep all cores busy when they run at once."""
        return max(1, self.cores // case.threads) if self.device == "cpu" else 1


@dataclasses.dataclass(frozen=True)
class Case:
    """A variant with a number of threads for one clip."""

    variant: Variant
    threads: int

    def __str__(self) -> str:
        return f"{self.variant.dtype}, {counted(self.threads, 'thread')}"


@dataclasses.dataclass
class Measured:
    """The measurements of one variant with one number of threads.

    Attributes:
        dtype: The variant.
        threads: CPU threads for one clip.
        runs_at_once: How many clips ran at once for ``clips_a_second``.
        load: Seconds that loading took.
        memory: The most memory that the process held with one clip at a time, in bytes; None where
            the system does not tell.
        wide_products: True if an int8 file is computed in 16 bits here.
        latencies: Seconds of each run, for each round.
        rates: Clips a second on all cores, for each round.
        agreement: How the variant compares with fp32; None for fp32 itself, and where fp32 was not
            measured.
        incomparable: The reason why the output cannot be compared with fp32's; None where it can.
        values: The output for each clip. Of the cases of a variant, that with the most threads
            has ``CLIPS`` of them, and the others as many as rounds.
        output: The name of the output.
    """

    dtype: str
    threads: int
    runs_at_once: int
    load: float
    memory: int | None
    wide_products: bool
    output: str
    latencies: list[list[float]] = dataclasses.field(default_factory=list)
    rates: list[float] = dataclasses.field(default_factory=list)
    values: list[list[float]] = dataclasses.field(default_factory=list)
    agreement: VariantFidelity | None = None
    incomparable: str | None = None

    @property
    def fastest(self) -> list[float]:
        """The seconds of the fastest run of each round: other programs only add time to a run."""
        return [min(times) for times in self.latencies]

    @property
    def median(self) -> float:
        """The median seconds of all runs."""
        return statistics.median(itertools.chain(*self.latencies))

    @property
    def p95(self) -> float:
        """The seconds within which 95 % of all runs were done."""
        return float(np.percentile([*itertools.chain(*self.latencies)], 95))

    @property
    def clips_a_second(self) -> float:
        """The median over the rounds of the clips that all cores do in a second."""
        return statistics.median(self.rates)

    def to_dict(self) -> dict[str, Any]:
        """The measurements for JSON: times in seconds, memory in bytes."""
        return {
            "dtype": self.dtype,
            "threads": self.threads,
            "median": self.median,
            "p95": self.p95,
            "runs": sum(map(len, self.latencies)),
            "rounds": len(self.latencies),
            "clips_a_second": self.clips_a_second,
            "clips_at_once": self.runs_at_once,
            "load": self.load,
            "memory": self.memory,
            "wide_products": self.wide_products,
            "agreement": None if self.agreement is None else self.agreement.to_dict(),
            "incomparable": self.incomparable,
        }

    def add(self, answer: Mapping[str, Any]) -> None:
        """Adds the answer of the process in one round."""
        self.latencies.append(answer["seconds"])
        rate = answer["clips_a_second"]
        self.rates.append(1 / statistics.median(answer["seconds"]) if rate is None else rate)
        self.values.append(answer["values"])
        if self.runs_at_once == 1 or len(self.latencies) == 1:
            # After the first round the peak would be that of several clips at once.
            self.memory = answer["memory"]


@dataclasses.dataclass(frozen=True)
class Failure:
    """A case that could not be measured, and the reason."""

    case: Case
    reason: str


Progress = Callable[[str, int, int | None], None]


def measure(plan: Plan, progress: Progress) -> tuple[list[Measured], list[Failure]]:
    """Measures all cases of a plan.

    Each case has a process, and the processes take turns: a time in which the machine is slow then
    slows all of them. If memory does not suffice for all processes at once, one case is measured
    after the other.

    Args:
        plan: The cases, and how to measure them.
        progress: Called before each step with its description, the number of steps that are done,
            and the number of all steps, or None while that is not known.

    Returns:
        The measurements, in the order of the plan, and the cases that failed.
    """
    measured: list[Measured] = []
    failures: list[Failure] = []
    groups = _groups(plan.cases())
    for group in groups:
        done, failed = _measure_together(plan, group, plan.seconds / len(groups), progress)
        measured += done
        failures += failed
    _compare_with_fp32(measured)
    return measured, failures


def _groups(cases: Sequence[Case]) -> list[list[Case]]:
    """Divides the cases into groups whose processes fit into memory together."""
    needs = [2 * case.variant.size + _MEMORY_OF_PYTHON for case in cases]
    usable = machine_memory().usable
    if usable is None or sum(needs) <= usable:
        return [list(cases)]
    return [[case] for case in cases]


def _measure_together(
    plan: Plan, cases: Sequence[Case], seconds: float, progress: Progress
) -> tuple[list[Measured], list[Failure]]:
    """Measures cases in turn, each in a process of its own, for about ``seconds`` in all."""
    start = time.perf_counter()
    with _Processes(plan, progress) as processes:
        for case in cases:
            processes.load(case)
        begin = time.perf_counter()
        for number in range(MOST_ROUNDS):
            # Every second round goes the other way, so that no case is always after the same one.
            for case in processes.cases[:: 1 if number % 2 == 0 else -1]:
                processes.run(case, number)
            now = time.perf_counter()
            rounds = _rounds(number + 1, now - begin, seconds - (now - start))
            if number + 1 >= rounds:
                break
            more = max(0, CLIPS - rounds) * len(_compared(plan, processes.cases))
            processes.steps_in_all = len(cases) + rounds * len(processes.cases) + more
        for case in _compared(plan, processes.cases):
            for clip in range(len(processes.measured[case].values), CLIPS):
                processes.compute(case, clip)
        return [*processes.measured.values()], processes.failures


class _Processes:
    """The processes of cases; one that fails ends, and the others go on.

    Args:
        plan: How to measure.
        progress: Called before each step.

    Attributes:
        measured: The measurements of the cases that have not failed.
        failures: The other cases.
        steps_in_all: How many steps there will be; None while that is not known.
    """

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self.measured: dict[Case, Measured] = {}
        self.failures: list[Failure] = []
        self.steps_in_all: int | None = None
        self._plan = plan
        self._progress = progress
        self._steps = itertools.count()
        self._children: dict[Case, ChildProcess] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def cases(self) -> list[Case]:
        """The cases that have not failed."""
        return list(self._children)

    def load(self, case: Case) -> None:
        """Starts the process of a case, which loads the variant."""
        with self._step("loading", case):
            child = self._stack.enter_context(ChildProcess(_CHILD))
            answer = child.ask(_loading(self._plan, case), _LONGEST_ANSWER)
            runs = self._plan.runs_at_once(case)
            self.measured[case] = Measured(case.variant.dtype, case.threads, runs, **answer)
            self._children[case] = child

    def run(self, case: Case, clip: int) -> None:
        """Measures a case for one round."""
        with self._step("running", case):
            self.measured[case].add(self._ask(case, clip, _BURST, self._plan.runs_at_once(case)))

    def compute(self, case: Case, clip: int) -> None:
        """Adds the output for a clip, for the agreement alone; nothing where the case failed."""
        if case in self._children:
            with self._step("comparing", case):
                self.measured[case].values.append(self._ask(case, clip, 0.0, 1)["values"])

    def _ask(self, case: Case, clip: int, seconds: float, runs: int) -> dict[str, Any]:
        question = {"clip": clip, "seconds": seconds, "runs": runs}
        answer: dict[str, Any] = self._children[case].ask(question, _LONGEST_ANSWER)
        return answer

    @contextlib.contextmanager
    def _step(self, verb: str, case: Case) -> Iterator[None]:
        self._progress(f"{verb} {case}", next(self._steps), self.steps_in_all)
        try:
            yield
        except TimesformerError as error:
            self._children.pop(case, None)
            self.measured.pop(case, None)
            self.failures.append(Failure(case, str(error)))


def _compared(plan: Plan, cases: Iterable[Case]) -> list[Case]:
    """Lists one case of each variant, the one with the most threads; none if fp32 is missing.

    The number of threads changes the time of a clip and not the answer, so one case is enough.
    """
    dtypes = {variant.dtype for variant in plan.variants}
    if "fp32" not in dtypes or len(dtypes) == 1:
        return []
    return [*{case.variant: case for case in sorted(cases, key=lambda case: case.threads)}.values()]


def _rounds(done: int, seconds: float, left: float) -> int:
    """Computes how many rounds to run in all.

    Args:
        done: The rounds so far.
        seconds: The time that they took.
        left: The time that is left for more.
    """
    return min(max(done + int(left / (seconds / done)), LEAST_ROUNDS), MOST_ROUNDS)


def _loading(plan: Plan, case: Case) -> dict[str, Any]:
    """Makes the first request to a process; see ``child.serve``."""
    return {
        "graph": str(case.variant.graph),
        "files": [str(file) for file in case.variant.files],
        "settings": {**dataclasses.asdict(plan.settings), "threads": case.threads},
    }


def _compare_with_fp32(measured: Sequence[Measured]) -> None:
    """Fills in the agreement of each variant with fp32, on the clips that both have seen."""
    if all(one.dtype != "fp32" for one in measured):
        return
    values: dict[str, list[list[float]]] = {}
    for one in measured:
        values[one.dtype] = max(values.get(one.dtype, []), one.values, key=len)
    for one in measured:
        if one.dtype == "fp32":
            continue
        clips = min(len(values["fp32"]), len(values[one.dtype]))
        expected, found = (
            np.array(values[dtype][:clips], dtype=np.float32) for dtype in ("fp32", one.dtype)
        )
        one.incomparable = incomparable(expected, found)
        if one.incomparable is None:
            limits = _LIMITS_OF.get(one.dtype, one.dtype)
            one.agreement = compare(limits, expected, found, logits=one.output == "logits")


def counted(number: int, noun: str) -> str:
    """Writes a number with its noun: ``1 thread``, ``2 threads``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
