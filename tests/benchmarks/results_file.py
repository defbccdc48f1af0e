"""Reads and writes the results: a JSON file for each machine, with a part for each benchmark."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from timesformer_runtime.model.cpu import granted_threads, instruction_sets

from tests.benchmarks.processes import ROOT

FOLDER = Path(__file__).parent / "results"
_PEERS = ("openvino", "nncf")
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_LIBRARIES = ("torch", "transformers", "onnx", "onnxruntime", "numpy", "av")


def hardware(note: str = "") -> dict[str, Any]:
    """The machine: processor, instruction sets, threads granted, memory in 10^9 bytes.

    Args:
        note: What the system does not tell about the machine, such as an emulator; empty for none.
    """
    sets = instruction_sets()
    machine = {
        "cpu": _cpu_name(),
        "instruction_sets": None if sets is None else list(sets),
        "threads": granted_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }
    return machine | ({"note": note} if note else {})


def slug(machine: dict[str, Any]) -> str:
    """A file name for a machine, such as ``intel-xeon-amx-2-threads``; its note comes last."""
    name = re.sub(r"\((R|TM)\)|Processor|CPU|@.*", "", machine["cpu"], flags=re.IGNORECASE)
    sets = machine["instruction_sets"] or ()
    kinds = {"amx_int8": "amx", "avx512_vnni": "vnni", "avx_vnni": "vnni", "avx2": "avx2"}
    kind = next((word for name, word in kinds.items() if name in sets), "")
    words = [name, kind, f"{machine['threads']} threads", machine.get("note")]
    return re.sub(r"[^a-z0-9]+", "-", " ".join(filter(None, words)).lower()).strip("-")


def peer_versions() -> dict[str, str]:
    """The versions of the other engines, as requirements.txt pins them."""
    lines = _REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    return {engine: pinned[engine] for engine in _PEERS}


def read(path: Path) -> dict[str, Any]:
    """The contents of a results file; where there is no file, contents without any part."""
    if not path.exists():
        return {"hardware": hardware(), "parts": {}}
    contents: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return contents


def write_part(path: Path, name: str, part: dict[str, Any], note: str = "") -> None:
    """Adds or replaces a part, with the date, the commit and the versions of the libraries."""
    contents = read(path)
    contents["hardware"] = hardware(note)
    contents["parts"][name] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            **{library: importlib.metadata.version(library) for library in _LIBRARIES},
        },
        **part,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(_rounded(contents), indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def _rounded(values: Any) -> Any:
    """Rounds numbers to five significant digits: further digits are noise."""
    if isinstance(values, float):
        return float(f"{values:.5g}")
    if isinstance(values, dict):
        return {key: _rounded(value) for key, value in values.items()}
    return [_rounded(value) for value in values] if isinstance(values, list) else values


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named.group(1).strip() if named else platform.processor() or platform.machine()


def _commit() -> str:
    """The commit that is checked out; empty outside a repository."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()
