"""Runs the benchmark against all peers, with the other engines in an environment of their own.

python -m tests.benchmarks.peers [options of tests.benchmarks.run]
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from tests.benchmarks import run
from tests.benchmarks.processes import ROOT

ENVIRONMENT = ROOT / ".venv-bench"
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def interpreter() -> Path:
    """Makes the environment, again where the requirements changed, and returns its Python."""
    python, stamp = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "requirements.sha256"
    wanted = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Installing {_REQUIREMENTS.name} into {ENVIRONMENT.name}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", _REQUIREMENTS], check=True)
        stamp.write_text(wanted)
    return python


def main() -> None:
    """Makes the environment and measures."""
    try:
        python = interpreter()
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(map(str, error.cmd))} failed", file=sys.stderr)
        sys.exit(1)
    run.main(["--peers", str(python), *sys.argv[1:]])


if __name__ == "__main__":
    main()
