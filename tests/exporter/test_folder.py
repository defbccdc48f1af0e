"""Folders that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from timesformer_exporter import folder as folder_module
from timesformer_exporter.errors import (
    InvalidOptionError,
    OutputExistsError,
    OutputWriteError,
)
from timesformer_exporter.folder import (
    REPORT,
    check_output,
    clean_up,
    publish,
    staging_folder,
    write_json,
    write_text,
    writing,
)


def _export(output: Path, text: str, *, force: bool = False) -> None:
    with staging_folder(output) as folder:
        (folder / REPORT).write_text(text)
        publish(folder, output, force=force)


def test_a_published_folder_is_all_that_is_left(tmp_path: Path) -> None:
    _export(tmp_path / "exported", "first")
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]
    assert (tmp_path / "exported" / REPORT).read_text() == "first"


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, failure: BaseException) -> None:
    _export(tmp_path / "exported", "first")

    def fail_half_way() -> None:
        with staging_folder(tmp_path / "exported") as folder:
            (folder / REPORT).write_text("half")
            raise failure

    with pytest.raises(type(failure)):
        fail_half_way()
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]
    assert (tmp_path / "exported" / REPORT).read_text() == "first"


def test_an_earlier_export_is_replaced_only_by_force(tmp_path: Path) -> None:
    output = tmp_path / "exported"
    _export(output, "first")
    (output / "onnx").mkdir()
    with pytest.raises(OutputExistsError, match="give `force` to replace it"):
        check_output(output, force=False)
    _export(output, "second", force=True)
    assert [path.name for path in output.iterdir()] == [REPORT]
    assert (output / REPORT).read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]


def test_force_does_not_delete_what_is_no_export(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    for name in ("photos", "file", "link"):
        with pytest.raises(OutputExistsError, match="not an earlier export"):
            check_output(tmp_path / name, force=True)
    (tmp_path / "empty").mkdir()
    check_output(tmp_path / "empty", force=True)
    _export(tmp_path / "repository", "first")
    (tmp_path / "repository" / "model.safetensors").touch()
    with pytest.raises(OutputExistsError, match=r"it holds model\.safetensors, which no export"):
        check_output(tmp_path / "repository", force=True)


def test_an_export_waits_while_another_one_replaces_the_same_output(tmp_path: Path) -> None:
    output = tmp_path / "exported"
    _export(output, "first")
    with ThreadPoolExecutor() as pool, folder_module._turn_to_rename(output):
        second = pool.submit(_export, output, "second", force=True)
        with pytest.raises(TimeoutError):
            second.result(timeout=0.3)
        # Another export is between its two renames: it has moved the earlier export away.
        output.rename(tmp_path / "earlier")
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / REPORT).write_text("third")
        (tmp_path / "new").rename(output)
    second.result()
    assert (output / REPORT).read_text() == "second"


def test_an_export_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "_MOST_PATIENCE", 0.0)
    with folder_module._lock(tmp_path):
        _export(tmp_path / "exported", "first")
    assert (tmp_path / "exported" / REPORT).read_text() == "first"


def _report(*files: str) -> str:
    return json.dumps({"files": {name: {} for name in files}})


@pytest.mark.parametrize(
    "name", ["onnx/holiday.mp4", "onnx/model_int8.onnx", "onnx/model.onnx.rejected.bak"]
)
def test_force_deletes_only_what_the_report_lists(name: str, tmp_path: Path) -> None:
    output = tmp_path / "exported"
    _export(output, _report("onnx/model.onnx", "onnx/model.onnx.data"))
    (output / "onnx").mkdir()
    for listed in ("model.onnx", "model.onnx.data", "model.onnx.rejected"):
        (output / "onnx" / listed).touch()
    check_output(output, force=True)
    (output / name).write_text("precious")
    with pytest.raises(OutputExistsError, match=f"it holds {name}, which no export has written"):
        _export(output, "second", force=True)
    assert (output / name).read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_force_deletes_no_folders_in_an_export(kind: str, tmp_path: Path) -> None:
    output = tmp_path / "exported"
    _export(output, _report("onnx/clips"))
    (output / "onnx").mkdir()
    (tmp_path / "clips").mkdir()
    if kind == "folder":
        (output / "onnx" / "clips").mkdir()
    else:
        (output / "onnx").rmdir()
        (output / "onnx").symlink_to(tmp_path / "clips")
    with pytest.raises(OutputExistsError, match="it holds onnx"):
        check_output(output, force=True)


@pytest.mark.parametrize(
    "report",
    [b"", b"[1]", b"{}", b'{"files": 3}', b'{"files": [[]]}', b"\xff", b"[" * 100_000],
    ids=lambda report: repr(report[:12]),
)
def test_a_report_that_says_nothing_lists_nothing(report: bytes, tmp_path: Path) -> None:
    output = tmp_path / "exported"
    (output / "onnx").mkdir(parents=True)
    (output / REPORT).write_bytes(report)
    check_output(output, force=True)
    (output / "onnx" / "model.onnx").touch()
    with pytest.raises(OutputExistsError, match=r"it holds onnx/model\.onnx"):
        check_output(output, force=True)


def _in_another_process(program: str, output: Path) -> subprocess.Popen[str]:
    """Runs a program until its first line of output."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(output)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


UNFINISHED = """
import sys, time
from pathlib import Path
from timesformer_exporter.folder import staging_folder
with staging_folder(Path(sys.argv[1])) as folder:
    (folder / "model.onnx").touch()
    print("ready", flush=True)
    time.sleep(600)
"""
REPLACING = """
import sys, time
from pathlib import Path
from timesformer_exporter.folder import publish, staging_folder
rename = Path.rename
def slow(path, target):
    if "partial" in path.name:
        print("ready", flush=True)
        time.sleep(600)
    return rename(path, target)
Path.rename = slow
with staging_folder(Path(sys.argv[1])) as folder:
    publish(folder, Path(sys.argv[1]), force=True)
"""


def test_a_killed_export_is_cleaned_up_by_the_next_one_and_a_living_one_is_not(
    tmp_path: Path,
) -> None:
    output = tmp_path / "exported"
    process = _in_another_process(UNFINISHED, output)
    try:
        others = [".exported.mine", ".exported-2.partial-abcdefgh", ".exported.partial-x.partial-y"]
        for name in others:
            (tmp_path / name).mkdir()
        (tmp_path / ".exported.partial-file").touch()
        others.append(".exported.partial-file")
        (partial,) = {path.name for path in tmp_path.iterdir()} - set(others)
        assert clean_up(output) is False
        assert (tmp_path / partial / "model.onnx").exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    clean_up(output)
    assert {path.name for path in tmp_path.iterdir()} == set(others)


def test_an_export_that_was_killed_while_replacing_gives_the_old_one_back(tmp_path: Path) -> None:
    output = tmp_path / "exported"
    _export(output, "first")
    process = _in_another_process(REPLACING, output)
    try:
        assert clean_up(output) is False
        assert not output.exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert clean_up(output) is True
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]
    assert (output / REPORT).read_text() == "first"


def test_a_failed_write_names_the_file_the_reason_and_the_remedy(tmp_path: Path) -> None:
    output = tmp_path / "exported"

    def fail(number: int) -> None:
        with staging_folder(output) as folder, writing(folder / "onnx" / "model.onnx"):
            raise OSError(number, os.strerror(number))

    for number, remedy in (
        (errno.ENOSPC, "make room on that disk, or give an `output` on another disk"),
        (errno.EFBIG, "raise the limit on the size of files"),
        (errno.EIO, "give an `output` in another folder"),
    ):
        with pytest.raises(OutputWriteError) as caught:
            fail(number)
        reason = os.strerror(number)
        expected = f"{output / 'onnx' / 'model.onnx'} cannot be written ({reason}); {remedy}"
        assert str(caught.value).startswith(expected)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_library_that_does_not_say_that_the_disk_is_full(
    tmp_path: Path, limit_files: Callable[[int], AbstractContextManager[None]]
) -> None:
    def library() -> None:
        with writing(tmp_path / "model.onnx", size=3_000_000):
            raise RuntimeError("its own words")

    with pytest.raises(RuntimeError, match="its own words"):
        library()
    assert not list(tmp_path.iterdir())

    with (
        limit_files(2_000_000),
        pytest.raises(OutputWriteError, match=r"model\.onnx cannot be written"),
    ):
        library()
    assert not list(tmp_path.iterdir())


def test_names_that_are_not_utf8_are_written_as_escapes(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    write_json(tmp_path / "values.json", {name: ["é", name]})
    written = (tmp_path / "values.json").read_text(encoding="utf-8")
    assert "caf\\udce9" in written
    assert "é" in written
    assert json.loads(written) == {name: ["é", name]}
    write_text(tmp_path / "README.md", f"# {name}")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "# caf\\udce9"


def test_an_interrupt_while_replacing_keeps_the_old_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "exported"
    _export(output, "first")
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if target == output and path.name.count("partial") and not path.name.endswith("replaced"):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _export(output, "second", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]
    assert (output / REPORT).read_text() == "first"


def test_two_exports_at_once_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        staging_folder(tmp_path / "exported") as first,
        staging_folder(tmp_path / "exported") as second,
    ):
        assert first != second
        assert first.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_folder_that_cannot_hold_the_output(tmp_path: Path) -> None:
    for name in (".", "..", "/"):
        with pytest.raises(InvalidOptionError, match="give a folder inside it"):
            check_output(Path(name), force=True)
    with pytest.raises(InvalidOptionError, match="there is no folder"):
        check_output(tmp_path / "absent" / "exported", force=False)
    with pytest.raises(
        InvalidOptionError, match="only paths in UTF-8; give another name"
    ) as caught:
        check_output(tmp_path / os.fsdecode(b"caf\xe9"), force=False)
    str(caught.value).encode()
