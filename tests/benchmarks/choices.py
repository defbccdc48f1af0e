"""Times the options that the runtime's session sets, each on and off, on the int8 base model.

python -m tests.benchmarks.choices [options of tests.benchmarks.run]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tests.benchmarks.bench import Bench
from tests.benchmarks.competitors import Competitor, int8_file
from tests.benchmarks.contest import Entry
from tests.benchmarks.rows import Row, time_rows

_OURS = "as the runtime runs it"
_ONE_BY_ONE = "the same, weights packed one by one"
# Each entry changes one of ONNX Runtime's own defaults; the first changes none.
_CHANGES: dict[str, dict[str, object]] = {
    "ONNX Runtime's defaults": {},
    "no spinning": {"session.intra_op.allow_spinning": "0"},
    "no memory arena": {"enable_cpu_mem_arena": False},
    "no memory pattern": {"enable_mem_pattern": False},
    "no prepacked weights": {"session.disable_prepacking": "1"},
    "one thread": {"intra_op_num_threads": 1},
}


def competitors(bench: Bench) -> list[Competitor]:
    """One int8 file under different options of the session."""
    graph = int8_file(bench.ours(bench.checkpoint()))
    default, *others = _CHANGES.items()
    return [
        Competitor(default[0], "ort", graph, default[1]),
        Competitor(_OURS, "ours", graph, reference=default[0]),
        Competitor(
            _ONE_BY_ONE,
            "ours",
            graph,
            {"session_options": {"session.prepack.enable_parallel": "0"}},
            reference=default[0],
        ),
        *(
            Competitor(name, "ort", graph, options, reference=default[0])
            for name, options in others
        ),
    ]


def rows(entries: Mapping[str, Entry]) -> list[Row]:
    """Compares the time under each change with that under ONNX Runtime's defaults."""
    default = next(iter(_CHANGES))
    changed = [name for name in entries if name != default]
    return [row for name in changed for row in time_rows(entries, name, {default: None})]


def main() -> None:
    """Measures only these options."""
    from tests.benchmarks import run  # noqa: PLC0415 (it imports this module)

    run.main(["--only", "choices", *sys.argv[1:]])


if __name__ == "__main__":
    main()
