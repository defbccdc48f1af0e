"""Damages the files of a model or checkpoint, each in a way that suits its format."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.models.graph_damage import damage_graph
from tests.fuzz.models.hostile import SECRET_NAMES, TEXTS, pick
from tests.fuzz.models.json_damage import damage_json
from tests.fuzz.models.pickle_damage import damage_archive, damage_stream
from tests.fuzz.models.tensor_damage import damage_safetensors
from tests.fuzz.mutations import Random, mutate

_HUGE = 3 << 30  # bytes of a sparse file

_Change = Callable[[bytes, Random], bytes]


def damage_folder(folder: Path, outside: Path, random: Random) -> None:
    """Damages a file in a folder, and sometimes several.

    Args:
        folder: The folder of a model or checkpoint.
        outside: A folder with secret files, to which links may lead.
        random: Chooses the files and the damage.
    """
    for _ in range(int(random.geometric(0.7))):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            return
        path = pick(files, random)
        what = random.random()
        if what < 0.06:
            _replace_by_another_kind(path, outside, random)
        elif what < 0.09:
            path.rename(path.with_name(_other_name(path.suffix, random)))
        elif path.stat().st_size < _HUGE and not path.is_symlink():
            data = path.read_bytes()
            path.write_bytes(_damaged(path, data, random))


def _damaged(path: Path, data: bytes, random: Random) -> bytes:
    if random.random() < 0.85:
        with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
            # Raises where an earlier damage has left a file that does not have its format any more.
            return _change_for(path, data)(data, random)
    return mutate(data, int(random.integers(1 << 40)))


def _change_for(path: Path, data: bytes) -> _Change:
    """Chooses the function that damages files of this format; ValueError for other files."""
    if path.suffix == ".json":
        return lambda text, random: damage_json(text.decode(), random)
    if path.suffix == ".onnx":
        return damage_graph
    if path.suffix == ".safetensors":
        return damage_safetensors
    if data.startswith(b"PK"):
        return damage_archive
    if data.startswith(b"\x80"):
        return damage_stream
    raise ValueError("of no known kind")


def _other_name(suffix: str, random: Random) -> str:
    name = pick((*TEXTS, "onnx", "model", "model.onnx_data", "config"), random)[:200]
    suffix = pick((suffix, ".onnx", ".json", ".bin", ".safetensors"), random)
    text = f"{name}{suffix}".translate({ord("\0"): "0", ord("/"): "|"})
    return text.encode("utf-8", "replace").decode()


def _replace_by_another_kind(path: Path, outside: Path, random: Random) -> None:
    """Replaces a file by something that is not a file, seems huge, or is elsewhere."""
    what = int(random.integers(7))
    path.unlink()
    if what == 0:
        path.mkdir()
    elif what == 1:
        os.mkfifo(path)
    elif what == 2:
        path.symlink_to(pick((path.name, "not-there"), random))
    elif what == 3:
        path.symlink_to(pick(("/dev/zero", "/dev/null", "/dev/full", "/proc/self/mem"), random))
    elif what == 4:
        path.touch()
        os.truncate(path, pick((0, _HUGE), random))
    elif what == 5 and path.name.endswith("_data"):
        # Loading follows links of other files, because people make such links. Only external data
        # must not lead out of the folder of its graph.
        path.symlink_to(outside / pick(SECRET_NAMES, random))
