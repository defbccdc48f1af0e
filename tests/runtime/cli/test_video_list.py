"""What users name, and the videos that are meant."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from timesformer_runtime.cli.video_list import find_videos
from timesformer_runtime.errors import InvalidOptionError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.mp4", "a.MKV", "notes.txt", "deep/c.webm", "deep/er/d.ts", "x[1].mp4"):
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clips" / name).touch()
    for name in (".hidden.mp4", ".cache/e.mp4"):
        (tmp_path / "clips" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "clips" / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["clips/notes.txt"], ["clips/notes.txt"]),  # who names a file means it
        (["missing.mp4"], ["missing.mp4"]),
        (["missing*.mp4"], ["missing*.mp4"]),
        (["clips/b.mp4", "clips/*.mp4"], ["clips/b.mp4", "clips/x[1].mp4"]),
        (["clips/x[1].mp4"], ["clips/x[1].mp4"]),
        (["clips/deep/**/*.ts"], ["clips/deep/er/d.ts"]),
        (["clips/de*"], ["clips/deep/c.webm", "clips/deep/er/d.ts"]),
        (
            ["clips"],
            [
                "clips/a.MKV",
                "clips/b.mp4",
                "clips/x[1].mp4",
                "clips/deep/c.webm",
                "clips/deep/er/d.ts",
            ],
        ),
        (["clips/deep", "clips/deep/er"], ["clips/deep/c.webm", "clips/deep/er/d.ts"]),
        (
            ["./clips/b.mp4", "clips/b.mp4", "empty/../clips/*.mp4"],
            ["./clips/b.mp4", "empty/../clips/x[1].mp4"],
        ),
    ],
)
def test_files_folders_and_patterns(
    folder: Path, arguments: list[str], expected: list[str]
) -> None:
    assert find_videos(arguments, None) == expected


def test_an_absolute_path_is_the_same_video(folder: Path) -> None:
    named = [str(folder / "clips/b.mp4"), "clips/b.mp4"]
    assert find_videos(named, None) == named[:1]
    assert find_videos(reversed(named), None) == named[1:]


def test_links_to_folders_are_followed_but_not_in_circles(folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "z.mp4").touch()
    Path("clips/deep/link").symlink_to(elsewhere)
    Path("clips/deep/circle").symlink_to(folder / "clips")
    Path("clips/deep/itself").symlink_to("itself")
    (elsewhere / "back").symlink_to(folder / "clips" / "deep")
    assert find_videos(["clips/deep"], None) == [
        "clips/deep/c.webm",
        *(f"clips/deep/circle/{name}" for name in ("a.MKV", "b.mp4", "x[1].mp4")),
        "clips/deep/er/d.ts",
        "clips/deep/link/z.mp4",
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such pipes")
@pytest.mark.parametrize("argument", ["clips", "clips/*", "clips/pipe*"])
def test_pipes_are_videos_only_where_they_are_named(folder: Path, argument: str) -> None:
    os.mkfifo("clips/pipe.mp4")
    Path("clips/pipe_link.mp4").symlink_to("pipe.mp4")
    Path("clips/pipe_gone.mp4").symlink_to("nothing")  # somebody has to be told
    found = find_videos([argument], None)
    assert "clips/pipe_gone.mp4" in found
    assert not {"clips/pipe.mp4", "clips/pipe_link.mp4"} & set(found)
    assert find_videos(["clips/pipe.mp4"], None) == ["clips/pipe.mp4"]


def test_a_list_on_standard_input(folder: Path) -> None:
    names = b"clips/b.mp4\r\n\n x[1] y .mp4\nclips/b.mp4\n\xff.mp4"
    expected = ["first.mp4", "clips/b.mp4", " x[1] y .mp4", os.fsdecode(b"\xff.mp4")]
    assert find_videos(["first.mp4", "-"], io.BytesIO(names)) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-"], "standard input is closed"),
        (["empty"], "empty has no file that is named like a video"),
        ([], "no video was named"),
    ],
)
def test_nothing_is_meant(folder: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        find_videos(arguments, None)
    with pytest.raises(InvalidOptionError, match="no video was named"):
        find_videos(["-"], io.BytesIO(b"\n"))


@pytest.mark.parametrize("argument", ["empty", "empt?"])
def test_a_folder_without_videos_ends_nothing(folder: Path, argument: str) -> None:
    assert find_videos([argument, "clips/b.mp4"], None) == [argument, "clips/b.mp4"]
    listed = io.BytesIO(b"clips/b.mp4\n")
    assert find_videos(["-", argument], listed) == ["clips/b.mp4", argument]


def test_folders_that_cannot_be_read_stay_and_end_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listdir = os.listdir

    def refusing(path: str) -> list[str]:
        if os.path.realpath(path) == str(folder / "clips" / "deep"):
            raise PermissionError(13, "Permission denied", path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refusing)
    Path("empty/link").symlink_to(folder / "clips" / "deep")
    assert find_videos(["clips"], None)[-2:] == ["clips/x[1].mp4", "clips/deep"]
    assert find_videos(["clips/deep", "clips/b.mp4"], None) == ["clips/deep", "clips/b.mp4"]
    assert find_videos(["empty"], None) == ["empty/link"]
    assert find_videos(["clips/**/*.mp4"], None) == [
        "clips/b.mp4",
        "clips/deep",
        "clips/x[1].mp4",
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("x" * 5000, "x" * 300 + "*", "nul\0byte", "clips/b.mp4/x", "\ud800", "\udcff/\ud800.mp4"),
        *("nul\0/*", "\ud800/*", "\ud800/**/x", "*/" * 3000, "[\ud800]*"),
    ],
    ids=ascii,
)
def test_names_that_cannot_be_stay_and_end_nothing(folder: Path, name: str) -> None:
    assert find_videos([name, "clips/b.mp4"], None) == [name, "clips/b.mp4"]


def test_patterns_do_not_follow_links_in_circles(folder: Path) -> None:
    for number in range(3):  # 3 ** 40 paths lead to each file
        Path(f"clips/circle{number}").symlink_to(".")
    assert find_videos(["clips/**/*.mp4"], None) == ["clips/b.mp4", "clips/x[1].mp4"]
    assert find_videos(["**/**/er/**"], None) == ["clips/deep/er/d.ts"]
    assert find_videos([f"{folder}/**/c.webm"], None) == [f"{folder}/clips/deep/c.webm"]


def test_folders_that_a_pattern_names_are_searched(folder: Path) -> None:
    Path("clips/deep/er/takes").mkdir()
    Path("clips/deep/er/takes/e.mp4").touch()
    assert find_videos(["clips/**/takes"], None) == ["clips/deep/er/takes/e.mp4"]
    assert find_videos(["clips/**/er"], None) == [
        "clips/deep/er/d.ts",
        "clips/deep/er/takes/e.mp4",
    ]
    with pytest.raises(InvalidOptionError, match=r"empt\? matches no video"):
        find_videos(["empt?"], None)


def test_the_parent_of_a_linked_folder_is_elsewhere(folder: Path) -> None:
    Path("empty/deep").symlink_to(folder / "clips" / "deep")
    named = ["empty/deep/../b.mp4", "empty/b.mp4", "clips/b.mp4"]
    assert find_videos(named, None) == named[:2]
