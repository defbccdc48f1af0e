"""Shows how much memory a board needs to classify a 1080p video with the base model in int8.

    python -m tests.benchmarks.small_board

The model has random weights. The memory is all that the process has in RAM at its peak: the
interpreter, the libraries, and the mapped weights. Where this process may make a control group, the
program also runs in one that has no more than the limit, with the pages of all files that it reads.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from tests.benchmarks.bench import Bench
from tests.benchmarks.made_files import MakingError
from tests.benchmarks.memory_group import memory_group
from tests.benchmarks.processes import ROOT
from tests.benchmarks.whole_process import cost


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=ROOT / "build/bench")
@click.option("--limit-mb", type=float, default=450, show_default=True, help="In 10^6 bytes.")
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--layers", type=int, default=12, hidden=True)
def main(work: Path, limit_mb: float, threads: int, layers: int) -> None:
    """Exits with 1 where the program needs more memory than the limit."""
    bench = Bench(work.absolute(), layers, rounds=1, starts=1, clips=1, threads=threads)
    video, checkpoint = bench.video(height=1080), bench.checkpoint()
    model = bench.quick_export(checkpoint)
    shutil.copy(checkpoint / "preprocessor_config.json", model)
    command = [
        *(sys.executable, "-m", "timesformer_runtime", "classify", str(model), str(video)),
        *("--dtype", "int8", "--threads", str(threads)),
    ]
    _, peak = cost(command, threads, bench.logs / "small-board.log")
    click.echo(f"peak memory {peak:.0f} MB, limit {limit_mb:.0f} MB")
    with memory_group(limit_mb) as group:
        if group is None:
            click.echo("no control group can be made here, so the limit was not enforced")
        else:
            try:
                cost(group.inside(command), threads, bench.logs / "small-board.log")
            except MakingError as error:
                raise click.ClickException(f"with {limit_mb:.0f} MB: {error}") from None
            peak = max(peak, group.peak_mb())
            click.echo(f"in a control group of {limit_mb:.0f} MB it took {group.peak_mb():.0f} MB")
    sys.exit(0 if peak <= limit_mb else 1)


if __name__ == "__main__":
    main()
