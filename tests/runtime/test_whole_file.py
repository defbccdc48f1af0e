"""Files that are written whole, and why one cannot be written."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import pytest
from timesformer_runtime.errors import InvalidOptionError, OutputError, unwritable
from timesformer_runtime.whole_file import check_new_file, whole_file


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "; make room, or write to another folder"),
        (errno.EDQUOT, "; make room, or write to another folder"),
        (errno.EFBIG, "; raise the limit on the size of files (ulimit -f), or write to another"),
        (errno.EACCES, "; change the permissions, or write to another folder"),
        (errno.EROFS, "; write to another folder"),
        (errno.ENOENT, "; make its folder, or write to another folder"),
        (errno.EIO, "; write to another folder"),
    ],
)
def test_the_remedy_fits_the_reason(number: int, remedy: str) -> None:
    message = str(unwritable("a.csv", OSError(number, "why")))
    assert message.startswith(f"a.csv cannot be written: why{remedy}")


def test_an_error_of_the_block_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(OutputError, match="a cannot be written: no device"), whole_file(path):
        raise OSError(errno.ENODEV, "no device")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("a", "old")]


def test_a_folder_without_permission_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # tests may run as root
    with pytest.raises(InvalidOptionError, match="change its permissions, or write to another"):
        check_new_file(tmp_path / "a", force=False, videos=(), model="m")


@pytest.mark.skipif(os.name != "posix", reason="links need rights on this system")
def test_links_that_lead_to_themselves(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    check_new_file(tmp_path / "loop", force=False, videos=(), model=str(tmp_path.parent / "m"))
    (tmp_path / "model").mkdir()
    for path in (tmp_path / "loop", tmp_path / "loop" / "a"):
        with contextlib.suppress(InvalidOptionError):  # there is no folder
            check_new_file(path, force=True, videos=(), model=str(tmp_path / "model"))


@pytest.mark.parametrize("folder", ["m", "m/onnx"])
def test_the_files_of_one_graph_are_protected(tmp_path: Path, folder: str) -> None:
    graph = tmp_path / "m" / "onnx" / "a.onnx"
    graph.parent.mkdir(parents=True)
    graph.touch()
    for name in ("config.json", "preprocessor_config.json", "b.onnx", "a.onnx_data", "README.md"):
        path = tmp_path / folder / name
        check_new_file(path, force=True, videos=(), model=str(graph))  # it is new
        path.touch()
        with pytest.raises(InvalidOptionError, match="is a file of the model"):
            check_new_file(path, force=True, videos=(), model=str(graph))
    (tmp_path / folder / "results.json").touch()
    check_new_file(tmp_path / folder / "results.json", force=True, videos=(), model=str(graph))


@pytest.mark.skipif(os.name != "posix", reason="links need rights on this system")
def test_links_to_and_from_the_files_of_one_graph(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    graph, config = tmp_path / "m" / "a.onnx", tmp_path / "m" / "config.json"
    for path in (graph, config):
        path.touch()
    (tmp_path / "a.onnx").symlink_to(graph)
    (tmp_path / "a.csv").symlink_to(config)
    for path, model in ((config, tmp_path / "a.onnx"), (tmp_path / "a.csv", graph)):
        with pytest.raises(InvalidOptionError, match="is a file of the model"):
            check_new_file(path, force=True, videos=(), model=str(model))
