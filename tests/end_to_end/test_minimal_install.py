"""The list of files that a minimal installation leaves out, on a made-up site-packages."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from examples.containers import minimal_install


@pytest.fixture
def site_packages(tmp_path: Path) -> Path:
    """Files that the list names, and one that it does not."""
    for name in (
        "onnxruntime/capi/libonnxruntime.so.1.99.0",
        "onnxruntime/transformers/models/tests/test_it.py",
        "numpy/lib/tests/test_it.py",
        "pygments/__init__.py",
        "numpy/core.py",
    ):
        file = tmp_path / "site-packages" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(1000))
    return tmp_path / "site-packages"


@pytest.mark.parametrize("purpose", ["video", "serve"])
def test_only_what_the_list_names_is_left_out(site_packages: Path, purpose: str) -> None:
    minimal_install.leave_out(site_packages, purpose)
    left = [path.relative_to(site_packages) for path in site_packages.rglob("*") if path.is_file()]
    assert left == [Path("numpy/core.py")]


def test_a_line_of_the_list_that_matches_nothing_is_named(
    site_packages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(site_packages / "onnxruntime")
    minimal_install.leave_out(site_packages, "video")
    unmatched = [line for line in capsys.readouterr().out.splitlines() if "nothing" in line]
    assert any("onnxruntime/capi/libonnxruntime.so*" in line for line in unmatched)
    assert not any("pygments" in line for line in unmatched)


def test_files_of_pyav_are_not_missed_without_pyav(
    site_packages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    minimal_install.leave_out(site_packages, "frames")
    assert "av/" not in capsys.readouterr().out
    assert (site_packages / "pygments").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new", "--package", "no-such.whl"], "--package no-such.whl: there is no such file"),
        (["new", "--constraint", "no-such.txt"], "--constraint no-such.txt: there is no such"),
        (["file/new"], "cannot be made: "),
    ],
)
def test_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["minimal_install.py", *arguments])
    monkeypatch.setattr("shutil.which", lambda name: name)
    # The installation itself must not begin.
    monkeypatch.setattr(minimal_install, "_run", lambda command: pytest.fail(f"ran {command}"))
    with pytest.raises(SystemExit) as ended:
        minimal_install.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_module_that_cannot_be_imported_any_more_is_named() -> None:
    extras = {"timesformer_runtime.extra": "No module named 'extra'"}
    minimal_install.check_imports(extras, extras)
    with pytest.raises(SystemExit, match=r"runtime\.x: No module named 'numpy'; leave_out\.toml"):
        minimal_install.check_imports(
            extras, {**extras, "timesformer_runtime.x": "No module named 'numpy'"}
        )


def test_a_program_that_fails_in_the_environment_is_one_line(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho 'Traceback' >&2\necho 'OSError: needed' >&2\nexit 1\n")
    python.chmod(stat.S_IRWXU)
    with pytest.raises(SystemExit, match=r"^minimal_install: OSError: needed; leave_out\.toml"):
        minimal_install.import_errors(tmp_path)


def test_holes_keep_the_content_and_the_rights(site_packages: Path) -> None:
    library = site_packages / "av.libs" / "libxcb.so.1"
    library.parent.mkdir()
    content = b"head" + bytes(1 << 20) + b"tail"
    library.write_bytes(content)
    library.chmod(0o755)
    minimal_install.leave_out(site_packages, "video")
    assert library.read_bytes() == content
    assert library.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in library.parent.iterdir()] == ["libxcb.so.1"]
