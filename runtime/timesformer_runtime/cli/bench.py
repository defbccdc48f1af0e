"""``timesformer bench``."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from timesformer_runtime.cli.model_options import (
    combined,
    device_option,
    hub_options,
    options_of_providers,
    provider_options,
    session_option,
)
from timesformer_runtime.cli.output import (
    BAD_INPUT,
    check_output,
    echo,
    fail,
    name_options,
    one_line,
    say,
)
from timesformer_runtime.errors import printable

if TYPE_CHECKING:
    from timesformer_runtime.bench.measure import Failure, Measured, Plan
    from timesformer_runtime.bench.verdict import Verdict


_BUSY = 1.3  # disturbance from which the command warns


@click.command()
@click.argument("model")
@click.option(
    "--dtype",
    "dtypes",
    metavar="NAME",
    multiple=True,
    help="A variant to measure (repeatable): fp32, fp16, int8, q4, ...  [default: all]",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    multiple=True,
    metavar="N",
    help="A number of CPU threads for one clip (repeatable).  [default: 1, 2, 4, ... up to all "
    "that CPU affinity and the container's quota grant]",
)
@click.option(
    "--seconds",
    type=float,
    default=60.0,
    show_default=True,
    metavar="S",
    help="About how long to measure. Slow models take longer: each variant runs at least 5 times, "
    "and 16 clips for the agreement.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object with all measurements.")
@combined(session_option(), *hub_options(), *provider_options(), device_option())
def bench(as_json: bool, **options: Any) -> None:
    """Measure MODEL's variants here, and say which one to use with how many threads.

    The command runs each variant in a process of its own on generated clips; the variants take
    turns. The table has the seconds of the model for one clip (median, and the time within which
    95 % of the runs were done); clips a second, where all cores work on clips at once; the seconds
    of loading, with the file in the system's cache; the most memory that the process held, in MB;
    and the agreement with fp32: the cosine of the outputs, and FAILED where the variant misses the
    limits of timesformer-export. Decoding of videos is not included.

    The last line is a recommendation. It compares the fastest run of each round, because other
    programs only add time; a difference counts if it shows in three of four rounds and is at least
    2 %. A variant that disagrees with fp32 is never recommended.
    """
    from timesformer_runtime.bench.measure import measure  # noqa: PLC0415
    from timesformer_runtime.bench.verdict import disturbance, verdict  # noqa: PLC0415
    from timesformer_runtime.cli.progress import ProgressBar  # noqa: PLC0415
    from timesformer_runtime.model.locate import INT8_OF_7_BITS  # noqa: PLC0415

    check_output()
    plan = _plan(**options)
    dtypes = ", ".join(printable(variant.dtype) for variant in plan.variants)
    threads = f"{' or '.join(map(str, plan.threads))} thread{'s' * (plan.threads[-1] > 1)}"
    say(
        f"{options['model']}: measuring {dtypes}, device {plan.device}, {threads}, for about "
        f"{plan.seconds:g} seconds"
    )
    with ProgressBar(None, "measurements") as progress:

        def show(text: str, done: int, total: int | None) -> None:
            progress.advance_to(done, total, text)

        measured, failures = measure(plan, show)
    for dtype, reason in dict.fromkeys((f.case.variant.dtype, f.reason) for f in failures):
        line = name_options(one_line(reason), click.get_current_context().command)
        say(f"timesformer: {printable(dtype)}: {line}")
    if not measured:
        fail("no variant could be measured", BAD_INPUT)
    if any(one.wide_products for one in measured):
        say("int8 runs in 16-bit products here, because 8-bit ones overflow on this CPU")
    if any(variant.graph.name == INT8_OF_7_BITS for variant in plan.variants):
        say(f"int8 is {INT8_OF_7_BITS}: weights of 7 bits (for CPUs where those of 8 overflow)")
    if disturbance(measured) > _BUSY:
        say(
            f"the machine is busy with other work: a typical run took {disturbance(measured):.1f} "
            "times as long as the fastest ones; measure again when it is quiet"
        )
    found = verdict(measured)
    if as_json:
        echo(json.dumps(_json(options["model"], plan, measured, failures, found)))
    else:
        for line in _table(measured):
            echo(line)
        echo(found.sentence)
    if failures:
        sys.exit(BAD_INPUT)


def _plan(  # the options of the command, by name
    model: str,
    *,
    dtypes: tuple[str, ...],
    threads: tuple[int, ...],
    seconds: float,
    revision: str | None,
    local_files_only: bool,
    **session: Any,
) -> Plan:
    """Finds the variants to measure, and downloads them where the model is on the Hub."""
    from timesformer_runtime.bench.measure import Plan, Variant  # noqa: PLC0415
    from timesformer_runtime.model.cpu import granted_threads  # noqa: PLC0415
    from timesformer_runtime.model.device import choose_device  # noqa: PLC0415
    from timesformer_runtime.model.locate import find_model, list_dtypes  # noqa: PLC0415
    from timesformer_runtime.model.settings import SessionSettings  # noqa: PLC0415

    session["provider_options"] = options_of_providers(
        session["providers"], session["provider_options"]
    )
    session["providers"] = session["providers"] or None
    settings = SessionSettings(**session)
    name = choose_device(settings).name
    if settings.providers is None:
        settings = dataclasses.replace(settings, device=name)
    listed = list_dtypes(model, revision=revision, local_files_only=local_files_only)
    wanted: list[str | None] = [*dict.fromkeys(dtypes or listed)]
    find = functools.partial(
        find_model, model, device=name, revision=revision, local_files_only=local_files_only
    )
    variants = [Variant.of(find(dtype=dtype)) for dtype in wanted or [None]]
    cores = granted_threads()
    counts = sorted(set(threads)) or (_powers_of_two(cores) if name == "cpu" else [cores])
    return Plan(variants, counts, cores, seconds, name, settings)


def _powers_of_two(cores: int) -> list[int]:
    """Gives 1, 2, 4, ... and the number of cores itself."""
    return [*(1 << bit for bit in range(cores.bit_length()) if 1 << bit < cores), cores]


def _table(measured: Sequence[Measured]) -> list[str]:
    from timesformer_runtime.bench.verdict import milliseconds  # noqa: PLC0415
    from timesformer_runtime.cli.tables import aligned  # noqa: PLC0415

    head = ("variant", "threads", "median", "p95", "clips/s", "load", "MB", "agreement")
    rows = [
        (
            one.dtype,
            str(one.threads),
            milliseconds(one.median),
            milliseconds(one.p95),
            f"{one.clips_a_second:.3g}",
            milliseconds(one.load),
            "-" if one.memory is None else f"{one.memory / 1e6:.0f}",
            _agreement(one),
        )
        for one in measured
    ]
    return aligned([head, *rows])


def _agreement(one: Measured) -> str:
    if one.incomparable is not None:
        return "FAILED"
    if one.agreement is None:
        return "-"
    return f"{'' if one.agreement.passed else 'FAILED '}{one.agreement.cosine:.5f}"


def _json(
    model: str,
    plan: Plan,
    measured: Sequence[Measured],
    failures: Sequence[Failure],
    found: Verdict,
) -> dict[str, Any]:
    """The measurements and the recommendation, for JSON; times are in seconds, sizes in bytes."""
    from timesformer_runtime.bench.verdict import disturbance  # noqa: PLC0415
    from timesformer_runtime.cli.diagnosis import versions  # noqa: PLC0415
    from timesformer_runtime.model.cpu import instruction_sets  # noqa: PLC0415

    def named(one: Measured | None) -> dict[str, Any] | None:
        return None if one is None else {"dtype": one.dtype, "threads": one.threads}

    return {
        "model": model,
        "device": plan.device,
        "cores": plan.cores,
        "instructions": instruction_sets(),
        "versions": versions(),
        "measurements": [one.to_dict() for one in measured],
        "disturbance": disturbance(measured),
        "failures": [
            {"dtype": f.case.variant.dtype, "threads": f.case.threads, "error": f.reason}
            for f in failures
        ],
        "recommendation": {
            "one_clip": named(found.one_clip),
            "many_clips": named(found.many_clips),
            "sentence": found.sentence,
        },
    }
