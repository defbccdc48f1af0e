"""The guards against hostile videos: memory and time of each file with its guard, and without.

    python -m tests.benchmarks.guards [WORD...]

Each file is read in a process of its own, which may take 3 GiB and a minute. With words, only the
files that have one of them in their name, or in that of their guard.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import av
import numpy as np
from timesformer_runtime.video import DecodeLimits, VideoDecoder
from timesformer_runtime.video.guard.nal_units import GuardedFile

from tests.benchmarks.results_file import hardware
from tests.fuzz.process import forget_peak, limited_memory, peak_mib
from tests.runtime.video.guard import test_mp4_tables as tables
from tests.runtime.video.guard import test_nal_units as nal_units
from tests.video_files import moving_pictures, write_video

_MEMORY = 3 << 30  # bytes
_SECONDS = 60.0
_SAMPLES, _EDITS = 20_000_000, 1_000_000
_WIDTH = 60  # characters of an outcome


class Uncounted(GuardedFile):
    """Counts no NAL units."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.stop_counting()


def _nothing(*_args: object) -> None:
    """Stands in for a check."""


# The replacements that switch each guard off, by names in timesformer_runtime.video.
SWITCHES: dict[str, dict[str, object]] = {
    "none": {},
    "MP4 tables": {"source.check_sample_tables": _nothing},
    "NAL units": {"opening.GuardedFile": Uncounted, "container.check_packet": _nothing},
    "no parser": {"opening._WITHOUT_PARSER": {}, "opening.GuardedFile._look_for_av1": _nothing},
}


class Case(NamedTuple):
    """A hostile file: its guard, its name, and the function that writes it to a path."""

    guard: str
    name: str
    write: Callable[[Path], object]


def _mp4(change: Callable[[bytes], bytes], **options: Any) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        write_video(path, moving_pictures(40), **options)
        path.write_bytes(change(path.read_bytes()))

    return write


def _announced(child: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """An MP4 file with a table of very many samples somewhere."""
    many = tables.box(b"stsz", struct.pack(">III", 0, 1, _SAMPLES))
    return _mp4(
        lambda data: tables.with_child(tables.for_any_number(data), tables.SAMPLES, child(many))
    )


def _edits(data: bytes) -> bytes:
    rows = struct.pack(">IiI", 40, 0, 1 << 16) * _EDITS
    return tables.with_box(data, b"elst", struct.pack(">II", 0, _EDITS) + rows)


def _compressed(path: Path) -> None:
    packed = zlib.compress(bytes(1 << 30))
    content = tables.box(b"dcom", b"zlib") + tables.box(
        b"cmvd", struct.pack(">I", 1 << 30) + packed
    )
    header = tables.box(b"moov", tables.box(b"cmov", content))
    path.write_bytes(tables.box(b"ftyp", b"qt  \0\0\0\0") + header)


def _fragments(path: Path) -> None:
    data = tables.write_tracks(path, moving_pictures(40), 100).read_bytes()
    path.write_bytes(tables.with_fragment(data, tables.fragment(100, len(data))))


def _listed(path: Path) -> None:
    """A file of 9 MB: too large for the decoder to keep its packets, so the decoder seeks."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 240, 320, 3)).astype(np.uint8)
    data = tables.write_tracks(path, noise, 8).read_bytes()
    path.write_bytes(tables.with_listed_fragment(data, tables.fragment(8, len(data))))


def _nal_units(codec: str, number: int) -> Callable[[Path], object]:
    return lambda path: nal_units.write_bomb(path, codec, number, _count(path))


def _av1(number: int) -> Callable[[Path], object]:
    return lambda path: nal_units.write_av1_bomb(path, number)


def _vvc(number: int) -> Callable[[Path], object]:
    return lambda path: nal_units.write_vvc_bomb(path, number, _count(path))


def _count(path: Path) -> int:
    """The number of NAL units that takes hundreds of megabytes."""
    return nal_units.NAL_UNIT_COUNT * (10 if "by_lengths" in path.name else 1)


CASES = [
    Case("MP4 tables", "announced.mp4", _announced(lambda many: many)),
    Case("MP4 tables", "elsewhere.mp4", _announced(lambda many: tables.box(b"udta", many))),
    Case("MP4 tables", "edits.mp4", _mp4(_edits)),
    Case("MP4 tables", "compressed.mov", _compressed),
    Case("MP4 tables", "fragments.mp4", _fragments),
    Case("MP4 tables", "listed.mp4", _listed),
    *(
        Case("NAL units", name, _nal_units(codec, number))
        for name, codec, number in nal_units.BOMBS
    ),
    *(Case("NAL units", name, _vvc(number)) for name, number in nal_units.VVC_BOMBS),
    *(Case("no parser", f"av1_{name}", _av1(number)) for name, number in nal_units.AV1_BOMBS),
    Case("none", "by_lengths_first_h264.mp4", _nal_units("libx264", 0)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--without", choices=SWITCHES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.without:  # one of the processes
        print(json.dumps(_read(arguments.words[0], arguments.without)))
        return
    os.environ["SVT_LOG"] = "0"  # the encoder of AV1 prints pages otherwise
    print(f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}, {hardware()['cpu']}\n")
    print("| guard | file | KB | with it | | without it | |")
    print("|---|---|--:|--:|---|--:|---|")
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            if not arguments.words or any(
                word in f"{case.guard} {case.name}" for word in arguments.words
            ):
                print(_row(case, Path(folder, case.name)), flush=True)


def _row(case: Case, path: Path) -> str:
    case.write(path)
    cells = [_in_a_process(path, guard) for guard in dict.fromkeys(("none", case.guard))]
    kilobytes = path.stat().st_size / 1e3
    cells = ["| ", *cells] if case.guard == "none" else cells
    return f"| {case.guard} | {case.name} | {kilobytes:,.0f} | {' | '.join(cells)} |"


def _in_a_process(path: Path, without: str) -> str:
    command = [sys.executable, "-m", "tests.benchmarks.guards", str(path), "--without", without]
    try:
        done = subprocess.run(command, capture_output=True, timeout=2 * _SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"more than {2 * _SECONDS:g} s | does not end"
    if done.returncode:
        return f"| ends with code {done.returncode}"
    mib, seconds, outcome = json.loads(done.stdout)
    return f"{mib} MiB, {seconds:.1f} s | {outcome.replace(str(path), '')[:_WIDTH].strip()}"


def _read(path: str, without: str) -> tuple[int, float, str]:
    with switched(SWITCHES[without]), limited_memory(_MEMORY):
        before, start = forget_peak(), time.perf_counter()
        try:
            with VideoDecoder(path, limits=DecodeLimits(max_seconds=_SECONDS)) as video:
                video.frames([max(0, len(video) - 1)])
                outcome = f"read, {len(video)} frames"
        except Exception as error:  # it is the outcome
            outcome = str(error) or repr(error)
        return peak_mib() - before, time.perf_counter() - start, outcome


@contextlib.contextmanager
def switched(changes: dict[str, object]) -> Iterator[None]:
    """Replaces guards while the context lasts."""
    with contextlib.ExitStack() as stack:
        for name, value in changes.items():
            stack.enter_context(mock.patch(f"timesformer_runtime.video.{name}", value))
        yield


if __name__ == "__main__":
    main()
