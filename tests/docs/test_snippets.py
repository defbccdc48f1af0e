"""Every command and Python snippet of the documents is right; the marked ones also run."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import click
import pytest
from timesformer_exporter.cli import command as export_command
from timesformer_runtime.cli import command as runtime_command

from tests.docs.snippets import EXPORTED, PAGES, ROOT, Block, blocks_of, furnish, run

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUN = {page: [block for block in blocks_of(page) if block.runs] for page in PAGES}
README = ROOT / "README.md"
_ENDS = {"|", ">", ">>", "<", "||", "&&", ";", "&"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of the README's first command, which ``make demo`` runs, too."""
    folder = tmp_path_factory.mktemp("readme")
    furnish(folder)
    run(RUN[README][0], folder)
    return folder / EXPORTED


@pytest.mark.skipif(shutil.which("bash") is None, reason="the documents' commands are for bash")
@pytest.mark.parametrize(
    "page", [page for page, blocks in RUN.items() if blocks], ids=lambda page: page.stem
)
def test_blocks_that_are_marked_run(page: Path, exported: Path, tmp_path: Path) -> None:
    furnish(tmp_path, exported)
    for block in RUN[page][1:] if page == README else RUN[page]:
        run(block, tmp_path)


def test_the_readme_runs_its_commands_and_its_snippet() -> None:
    languages = [block.language for block in RUN[README]]
    assert languages == ["sh", "sh", "python"]
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def test_a_page_names_only_files_that_its_export_writes() -> None:
    checked = 0
    for page in (*PAGES, *ROOT.glob("examples/*/README.md")):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^ *timesformer-export .*--output .*$", text, re.MULTILINE):
            output = re.findall(r"--output (\S+)", line)[0]
            used = set(re.findall(rf"{re.escape(output)}/onnx/model_(\w+)\.onnx", text))
            written = set(re.findall(r"--dtype (\w+)", line))
            checked += len(used)
            assert "--web" in line or used <= written, page
    assert checked > 1


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_commands_and_imports_are_right(block: Block, tmp_path: Path) -> None:
    if block.language == "python":
        _check_imports(block.text)
        return
    (tmp_path / "clips").mkdir()
    for words in _commands(block.text):
        _check_command(words, tmp_path)


def _commands(text: str) -> Iterator[list[str]]:
    """The words of each command, without comments, pipes and redirections."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.wordchars += "[]=,:@{}$%^!"
        words: list[str] = []
        for word in lexer:
            if word in _ENDS:
                yield words
                words = []
            else:
                words.append(word)
        yield words


def _check_command(words: list[str], folder: Path) -> None:
    match words:
        case ["timesformer", name, *arguments]:
            group = cast("click.Group", runtime_command)
            assert name in group.commands, words
            _parse(group.commands[name], name, arguments, folder)
        case ["timesformer-export", *arguments]:
            _parse(export_command, "timesformer-export", arguments, folder)
        case ["make", *targets]:
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            for target in targets:
                assert "=" in target or re.search(rf"^{target}:", makefile, re.MULTILINE), words
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module), words
        case ["pip", *arguments]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            known = {*extras["optional-dependencies"]}
            for argument in arguments:
                for names in re.findall(r"^(?:timesformer-onnx|\.)\[(.*)\]$", argument):
                    assert {*names.split(",")} <= known, words


def _parse(command: click.Command, name: str, arguments: list[str], folder: Path) -> None:
    """Parses a command line as the command itself does, without running the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        try:
            command.make_context(name, [*arguments])
        except click.ClickException as error:
            pytest.fail(f"{name} {' '.join(arguments)}: {error.format_message()}")


def _check_imports(text: str) -> None:
    """Checks that a snippet compiles, and that its imports from this project exist."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("timesformer_"):
            module = importlib.import_module(str(node.module))
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module} has no {name.name}"
