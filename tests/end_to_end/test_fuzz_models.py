"""Damaged models and checkpoints: each is run or refused in a line, and reads no other files."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.campaign import run
from tests.fuzz.models.graph_damage import damage_graph
from tests.fuzz.models.json_damage import damage_json
from tests.fuzz.models.pickle_damage import damage_archive, damage_stream
from tests.fuzz.models.seeds import QUICK_MODELS, SEEDS
from tests.fuzz.models.tensor_damage import damage_safetensors
from tests.fuzz.mutations import Random

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="the fuzzer watches files as Linux does"
)


def test_damaged_models_are_run_or_refused() -> None:
    report = run(QUICK_MODELS, 0, cases=10 * len(SEEDS))
    assert report.findings == []
    assert report.cases == 10 * len(SEEDS)
    assert report.outcomes["ran"] >= 0.1 * report.cases
    assert all(outcomes["refused"] for outcomes in report.by_seed.values())


# Each makes the loader do what no model may make it do.
VIOLATIONS = {
    "a library opens a file beside the folder": (
        "open_in_c(outside / 'secret.bin')",
        "touched what is not the model's: opened",
    ),
    "a library reads a file of the folder above": (
        "open_in_c(outside.parent / 'inside' / 'model.safetensors')",
        "touched what is not the model's: opened",
    ),
    "a library writes outside": (
        "open_in_c(outside / 'new', os.O_CREAT | os.O_WRONLY)",
        "touched what is not the model's: created",
    ),
    "python opens another file": (
        "open(os.path.join(os.sep, 'etc', 'hostname'), 'rb').close()",
        "touched what is not the model's: open '/etc/hostname'",
    ),
    "python runs a program": (
        "os.system('true')",
        "touched what is not the model's: os.system",
    ),
    "a pickle imports": (
        "pickle.loads(b'cos\\nsystem\\n.')",
        "touched what is not the model's: pickle.find_class",
    ),
    "a secret is in a message": (
        "raise InvalidModelError(f'it is {SECRET_JSON.decode()}')",
        "a secret is told",
    ),
    "an error of another tree": ("raise KeyError('x')", "KeyError('x') in"),
    "an error of several lines": ("raise Unescaped('a\\nb')", "an error of several lines"),
    "an error of a megabyte": (
        "raise InvalidModelError('x' * 1000000)",
        "an error of 1000000 characters",
    ),
    "an error that moves the cursor": (
        "raise Unescaped('\\x1b[2J')",
        "an error with characters that are not plain",
    ),
    "an exception is lost in a thread": (
        "thread = threading.Thread(target=int, args=('x',)); thread.start(); thread.join()",
        "in a thread",
    ),
    "all memory is taken": ("bytes(2 << 30)", "MemoryError() in"),
    "an output is a secret": (
        "assert not worker._holds_a_secret(np.frombuffer(b'abcd' + SECRET, np.float32))",
        "AssertionError() in",
    ),
    "an output is too large to be copied": (
        "assert not worker._holds_a_secret(np.zeros((3, 1 << 26), np.float32))",
        "ran",
    ),
    "nothing": ("pass", "ran"),
}

PLANT = """
import ctypes, json, os, pickle, sys, threading
from pathlib import Path
import numpy as np
from timesformer_runtime.errors import InvalidModelError
from tests.fuzz.models import worker
from tests.fuzz.models.guard import SECRET, SECRET_JSON

class Unescaped(InvalidModelError):
    __str__ = Exception.__str__

def open_in_c(path, flags=os.O_RDONLY):
    libc = ctypes.CDLL(None)
    file = libc.open(os.fsencode(path), flags, 0o600)
    assert file >= 0
    libc.close(file)

def load(*_):
    exec(violation)
    return ""

violation = "pass"
seeds, scratch = map(Path, sys.argv[1:])
outside = scratch / "outside"
worker._run = load
with worker.Worker(seeds, scratch) as guarded:
    for violation in json.loads(sys.stdin.read()):
        print(json.dumps(guarded.use("own", None)["outcome"]))
"""


LIMITED = """
from tests.fuzz.process import limited_memory

try:
    with limited_memory(1 << 20):
        bytes(1 << 28)
except MemoryError:
    print("limited", len(bytes(1 << 28)))
"""


def test_damage_itself_has_no_limit_of_memory() -> None:
    # In a process of its own: pytest's may free as much memory during the block as the block takes.
    done = subprocess.run(
        [sys.executable, "-c", LIMITED],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.split() == ["limited", str(1 << 28)]


def test_every_violation_is_found(tmp_path: Path) -> None:
    (tmp_path / "seeds").mkdir()
    (tmp_path / "scratch").mkdir()
    SEEDS["own"].write(tmp_path / "seeds" / "own")
    done = subprocess.run(
        [sys.executable, "-c", PLANT, str(tmp_path / "seeds"), str(tmp_path / "scratch")],
        input=json.dumps([violation for violation, _ in VIOLATIONS.values()]),
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    for (name, (_, expected)), outcome in zip(VIOLATIONS.items(), outcomes, strict=True):
        assert outcome.startswith(expected), f"{name}: {outcome}"


@pytest.mark.parametrize(
    ("seed", "file", "damage"),
    [
        ("own", "onnx/model.onnx", damage_graph),
        ("external", "model.onnx", damage_graph),
        ("preprocessor", "config.json", lambda data, random: damage_json(data.decode(), random)),
        ("safetensors", "model.safetensors", damage_safetensors),
        ("facebook", "model.pyth", damage_archive),
        ("facebook-stream", "model.pyth", damage_stream),
    ],
)
def test_damage_depends_on_its_number_only(
    seed: str, file: str, damage: Callable[[bytes, Random], bytes], tmp_path: Path
) -> None:
    SEEDS[seed].write(tmp_path / seed)
    data = (tmp_path / seed / file).read_bytes()

    def damaged(number: int) -> bytes:
        return damage(data, np.random.default_rng(number))

    all_damaged = [damaged(number) for number in range(100)]
    assert all_damaged == [damaged(number) for number in range(100)]
    assert len(set(all_damaged)) > 50
