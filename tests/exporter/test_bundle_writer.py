"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from timesformer_exporter.bundle_writer import (
    REPORT,
    check_output,
    publish,
    staging_folder,
)
from timesformer_exporter.errors import InvalidOptionError, OutputExistsError


def _export(output: Path, text: str, *, force: bool = False) -> None:
    with staging_folder(output) as folder:
        (folder / REPORT).write_text(text)
        publish(folder, output, force=force)


def test_a_published_folder_is_all_that_is_left(tmp_path: Path) -> None:
    _export(tmp_path / "bundle", "first")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (tmp_path / "bundle" / REPORT).read_text() == "first"


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, failure: BaseException) -> None:
    _export(tmp_path / "bundle", "first")

    def fail_half_way() -> None:
        with staging_folder(tmp_path / "bundle") as folder:
            (folder / REPORT).write_text("half")
            raise failure

    with pytest.raises(type(failure)):
        fail_half_way()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (tmp_path / "bundle" / REPORT).read_text() == "first"


def test_an_earlier_export_is_replaced_only_by_force(tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    _export(output, "first")
    (output / "onnx").mkdir()
    with pytest.raises(OutputExistsError, match="--force"):
        check_output(output, force=False)
    _export(output, "second", force=True)
    assert [path.name for path in output.iterdir()] == [REPORT]
    assert (output / REPORT).read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


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


def test_an_interrupt_while_replacing_keeps_the_old_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "bundle"
    _export(output, "first")
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if target == output and path.name.count("partial") and not path.name.endswith("replaced"):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _export(output, "second", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (output / REPORT).read_text() == "first"


def test_two_exports_at_once_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        staging_folder(tmp_path / "bundle") as first,
        staging_folder(tmp_path / "bundle") as second,
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
        check_output(tmp_path / "absent" / "bundle", force=False)
    with pytest.raises(
        InvalidOptionError, match="only paths in UTF-8; give another name"
    ) as caught:
        check_output(tmp_path / os.fsdecode(b"caf\xe9"), force=False)
    str(caught.value).encode()
