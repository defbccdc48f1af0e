"""Finds the code blocks of the documents and runs them in a folder.

The tests run a block below ``<!-- run -->``, and only parse the commands of all others. The blocks
of a page run in order, in one folder.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "runtime" / "timesformer_runtime" / "sample_clips"
EXPORTED = "demo/shot-transitions-divided-onnx"  # the folder that `make demo` writes
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "models" / "README.md")
    if path.name != "CHANGELOG.md"
)

_BLOCK = re.compile(
    r"^(?P<run><!-- run -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
# A line that prints, with a comment that gives the output: print(x)  # 3
_PRINTED = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)
_PATIENCE = 400  # seconds for a block; an export takes ten, on a busy machine many more


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block of a page.

    Attributes:
        page: The page, relative to the repository.
        line: The line of the page at which the block begins, counted from 1.
        language: ``sh`` or ``python``.
        text: The code.
        runs: True where the tests run the block.
    """

    page: str
    line: int
    language: str
    text: str
    runs: bool

    @property
    def where(self) -> str:
        """Page and line."""
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The shell and Python blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page=page.relative_to(ROOT).as_posix(),
            line=text.count("\n", 0, match.start()) + 1,
            language=match["language"],
            text=match["text"],
            runs=match["run"] is not None,
        )
        for match in _BLOCK.finditer(text)
        if match["language"] in ("sh", "python")
    ]


def furnish(folder: Path, exported: Path | None = None) -> None:
    """Puts the files of the documents' examples into a folder: videos, and the demo's export."""
    (folder / EXPORTED).parent.mkdir()
    if exported is not None:
        shutil.copytree(exported, folder / EXPORTED)
    for name in ("models", "runtime"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(SAMPLES, folder / "videos")
    shutil.copy(SAMPLES / "cut.mp4", folder / "video.mp4")
    shutil.copy(SAMPLES / "wipe_left.mp4", folder / "film.mp4")


def run(block: Block, folder: Path) -> None:
    """Runs a block; each ``print`` must print the text of the comment behind it."""
    command = ["bash", "-eu", "-o", "pipefail", "-c", block.text]
    if block.language == "python":
        command = [sys.executable, "-c", block.text]
    tools = Path(sys.executable).parent
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{block.where}: {done.stderr or done.stdout}"
    promised = _PRINTED.findall(block.text)
    if block.language == "python" and promised:
        assert done.stdout.splitlines() == promised, block.where
