"""Speed and memory of the base model against its peers, measured in turn.

    python -m tests.benchmarks.run

compares our files with the plain recipe and PyTorch; ``python -m tests.benchmarks.peers`` also
compares them with the other engines. The folder ``build/bench`` keeps the models (several
gigabytes) for the next run. The numbers go to ``tests/benchmarks/results``.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console
from timesformer_runtime.model.cpu import granted_threads

from tests.benchmarks import attention_types, choices, growth, large, speed, tables, whole_process
from tests.benchmarks import results_file as results
from tests.benchmarks.bench import Bench
from tests.benchmarks.competitors import Competitor
from tests.benchmarks.contest import Entry, contest
from tests.benchmarks.made_files import MakingError, remove
from tests.benchmarks.processes import ROOT, WorkerError
from tests.benchmarks.rows import Row

_REAL_LAYERS = 12
_DEFAULT_PARTS = ("speed", "whole", "attention", "growth")


@click.command()
@click.option(
    "--only",
    "parts",
    multiple=True,
    type=click.Choice([*_DEFAULT_PARTS, "large", "choices"]),
    default=_DEFAULT_PARTS,
    show_default=True,
    help="What to measure.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=15,
    show_default=True,
    help="How often each competitor runs.",
)
@click.option(
    "--starts",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How often each is loaded in a fresh process.",
)
@click.option(
    "--clips",
    type=click.IntRange(min=2),
    default=8,
    show_default=True,
    help="Clips whose logits are compared with PyTorch's.",
)
@click.option(
    "--layers",
    type=click.IntRange(min=1),
    default=_REAL_LAYERS,
    show_default=True,
    help="Layers of the model. Numbers of another model stay in the work folder.",
)
@click.option("--threads", type=click.IntRange(min=1), help="[default: as many as are granted]")
@click.option("--work", type=click.Path(path_type=Path), default=ROOT / "build/bench")
@click.option(
    "--peers",
    type=click.Path(exists=True, path_type=Path),
    metavar="PYTHON",
    help="The interpreter of the environment with the other engines.",
)
@click.option(
    "--note",
    default="",
    metavar="TEXT",
    help="What the results say about this machine, such as an emulator or a masked CPUID.",
)
@click.option("--clean", is_flag=True, help="Remove the models at the end.")
def main(
    parts: tuple[str, ...],
    rounds: int,
    starts: int,
    clips: int,
    layers: int,
    threads: int | None,
    work: Path,
    peers: Path | None,
    note: str,
    clean: bool,
) -> None:
    """Measures and prints, and writes the numbers to the results file of this machine."""
    for stop in (signal.SIGTERM, signal.SIGHUP):  # raises SystemExit, so that the processes end
        signal.signal(stop, lambda number, _frame: sys.exit(128 + number))
    console = Console(markup=False, width=None if Console().is_terminal else 140)
    bench = Bench(
        work=work.absolute(),
        layers=layers,
        rounds=rounds,
        starts=starts,
        clips=clips,
        threads=threads or granted_threads(),
        peers=peers and peers.absolute(),
        note=note,
        announce=lambda text: Console(stderr=True, style="dim").print(text),
    )
    folder = results.FOLDER if layers == _REAL_LAYERS else work
    file = folder / f"{results.slug(results.hardware(note))}.json"
    try:
        for part in parts:
            _PARTS[part](bench, file, console)
    except (MakingError, WorkerError) as error:
        raise click.ClickException(str(error)) from error
    finally:
        if clean:
            remove(bench.work)
    console.print(f"Numbers: {file}", soft_wrap=True)


def _speed(bench: Bench, file: Path, console: Console) -> None:
    competitors = speed.basic_competitors(bench)
    if bench.peers:
        competitors += speed.peer_competitors(bench)
    name = "peers" if bench.peers else "speed"
    _contest(name, competitors, speed.rows, "Base divided model, 8x224x224", bench, file, console)


def _attention(bench: Bench, file: Path, console: Console) -> None:
    competitors = attention_types.competitors(bench)
    title = "The other attention types"
    _contest("attention", competitors, attention_types.rows, title, bench, file, console)


def _choices(bench: Bench, file: Path, console: Console) -> None:
    competitors = choices.competitors(bench)
    _contest("choices", competitors, choices.rows, "Options of a session", bench, file, console)


def _contest(
    name: str,
    competitors: Sequence[Competitor],
    rows: Callable[[Mapping[str, Entry]], list[Row]],
    title: str,
    bench: Bench,
    file: Path,
    console: Console,
) -> None:
    entries = contest(competitors, bench, bench.clip_file())
    table = rows(entries)
    measured = {one: dataclasses.asdict(entry) for one, entry in entries.items()}
    part = _part(bench, table) | {"competitors": measured}
    if name == "peers":
        part |= {"peer_versions": results.peer_versions()}
    results.write_part(file, name, part, bench.note)
    console.print(tables.measurements(entries, f"{title}: one clip"))
    console.print(tables.comparison(table, f"{title}: in turn"))


def _whole(bench: Bench, file: Path, console: Console) -> None:
    figures, table = whole_process.measure(bench)
    results.write_part(file, "whole", _part(bench, table) | {"commands": figures}, bench.note)
    console.print(tables.comparison(table, "From start to label, a 10-second 720p video"))


def _part(bench: Bench, rows: list[Row]) -> dict[str, object]:
    names = ("layers", "threads", "rounds", "starts")
    settings = {name: getattr(bench, name) for name in names}
    return settings | {"rows": [dataclasses.asdict(row) for row in rows]}


def _growth(bench: Bench, file: Path, console: Console) -> None:
    points = growth.measure(bench)
    results.write_part(
        file, "growth", _part(bench, []) | {"points": growth.as_dict(points)}, bench.note
    )
    console.print(growth.table(points))


def _large(bench: Bench, file: Path, console: Console) -> None:
    variants = large.measure(bench)
    results.write_part(
        file, "large", _part(bench, []) | {"variants": large.as_dict(variants)}, bench.note
    )
    console.print(large.table(variants))


_PARTS: dict[str, Callable[[Bench, Path, Console], None]] = {
    "speed": _speed,
    "whole": _whole,
    "attention": _attention,
    "growth": _growth,
    "large": _large,
    "choices": _choices,
}

if __name__ == "__main__":
    main()
