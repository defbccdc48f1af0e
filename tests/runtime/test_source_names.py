"""Names of videos in messages: no form of URL shows what is secret in it."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from timesformer_runtime import VideoClassifier, cli
from timesformer_runtime.cli.video_list import find_videos
from timesformer_runtime.errors import TimesformerError
from timesformer_runtime.source_names import hide_secrets, shown
from timesformer_runtime.video.live.address import live_address

from tests.tiny_graphs import write_exported_model

HOST = "127.0.0.1:9"  # where nobody listens
SECRET = "hunter2"
FORMS = [
    form.replace("HOST", HOST)
    for form in (
        "rtsp://user:hunter2@HOST/x",
        "rtsp://user:pa/hunter2@HOST/x",
        "rtsp://user:hunter2/ss@HOST/x",
        "rtsp://user:pa@hunter2@HOST/x",
        "rtsp://user:hunter2?ss@HOST/x",
        "rtsp://user:pa#hunter2@HOST/x",
        "rtsp://user:12/hunter2@HOST/x",
        "rtsp://user:pa ss hunter2@HOST/x",
        "rtsp://user:hunter2\n@HOST/x",
        "rtsp://hunter2@HOST/x",
        "rtsp://:hunter2@HOST/x",
        "rtsp://HOST/x?user=a&pwd=hunter2",
        "rtsp://HOST/x?pwd=a@hunter2",
        "rtsp://HOST/user=a&password=hunter2&channel=1",
        "rtsp://HOST/user=admin_password=hunter2_channel=1",
        "rtsp://HOST/user/a/password/hunter2/x",
        " rtsp://user:hunter2@HOST/x",
        "\t\nrtsp://user:hunter2@HOST/x\n",
        "RTSP://user:hunter2@HOST/x",
        "rtsp:/user:hunter2@HOST/x",
        "rtsp:///user:hunter2@HOST/x",
        "rtsp:\\\\user:hunter2@HOST\\x",
        "rtsp//user:hunter2@HOST/x",
        "rtsp;//hunter2@HOST/x",
        "rtsp:user:hunter2@HOST/x",
        "user:hunter2@HOST/x",
        "//user:hunter2@HOST/x",
        "rtsp\uff1a//user:hunter2@HOST/x",
        "\ufeffrtsp://user:hunter2@HOST/x",
        "rtsp://user%3Ahunter2%40127.0.0.1/x",
        "rtsp://HOST/x%3Fpwd%3Dhunter2",
        "rtsp://HOST/x%253Fpwd%253Dhunter2",
        "rtsp://HOST/x#hunter2",
        "rtsp://user:hunter2@[::1]:9/x",
        "rtsp://user:hunter2@[::1%25lo]:9/x",
        "rtsp://[::1]:9/x?t=hunter2",
        "rtmp://HOST/live/hunter2",
        "http://HOST/user1/hunter2/1234.ts",
        "http://HOST/live/me/hunter2/1234.m3u8",
        "http://HOST/x;pwd=hunter2/y",
        "http://HOST/token/hunter2/live.ts",
        "http://HOST/AbCd1234hunter2XYZ/live.ts",
        "http://HOST/aaaabbbbccccdddd.hunter2eeeeffffgggghhhh/live.ts",
        "gopher://user:hunter2@HOST/x",
        "s3://user:hunter2@HOST/x",
        "srt://HOST?passphrase=hunter2",
        "concat:rtsp://user:hunter2@HOST/x|rtsp://user:hunter2@HOST/y",
        "async:rtsp://user:hunter2@HOST/x",
        "user:hunter2 rtsp://HOST/x",
    )
]


@pytest.mark.parametrize("url", FORMS)
def test_no_form_shows_its_secret(url: str) -> None:
    assert SECRET not in shown(url)
    assert shown(shown(url)) == shown(url)
    for text in (f"cannot open {url!r}: no", f"cannot open {url}: no", url):
        assert SECRET not in hide_secrets(text, url)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("rtsp://admin:secret@camera:554/live", "rtsp://***@camera:554/live"),
        ("RTSP://camera/Live?channel=1", "rtsp://camera/Live?***"),
        ("rtsp://cam/Streaming/Channels/101", "rtsp://cam/Streaming/Channels/101"),
        ("http://host:80/live.ts", "http://host:80/live.ts"),
        ("udp://127.0.0.1:5000", "udp://127.0.0.1:5000"),
        ("udp://@239.0.0.1:1234", "udp://@239.0.0.1:1234"),
        ("rtsp://a:b@[fe80::1%25eth0]:554/x", "rtsp://***@[fe80::1%25eth0]:554/x"),
        ("rtmp://host/app/stream", "rtmp://host/app/***"),
        ("file:///etc/passwd", "file:///etc/passwd"),
        ("http://host:12/a:b@c", "http://***"),  # user "host", and a password "12/a:b"
    ],
)
def test_the_rest_of_a_url_is_shown(url: str, name: str) -> None:
    assert shown(url) == name


@pytest.mark.parametrize(
    "path",
    [
        "clip.mp4",
        "-",
        "concat:a|b",
        "C:/Users/x@y/clip.mp4",
        "/data/2024-01-01T10:30:00@cam1.mp4",
        "10:30@cam.mp4",
        "/mnt//x@y/z.mp4",
        "password=1?&#.mp4",
        "a\n\udcff\0.mp4",
    ],
)
def test_a_path_is_shown_as_it_is(path: str) -> None:
    assert shown(path) == path
    assert hide_secrets(f"{path}: it is empty", path) == f"{path}: it is empty"


def test_a_file_that_is_there_is_shown_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rtsp:/user:secret@host", "user:secret@host/x"):
        assert shown(name) != name
        Path(name).parent.mkdir()
        Path(name).touch()
        assert shown(name) == name


@pytest.mark.parametrize(
    "text",
    [
        "x" * 200_000,
        "a:" * 90_000,
        "//a:" * 50_000,
        "rtsp://" * 30_000,
        "/" * 200_000,
        "%25" * 9999,
    ],
    ids=lambda text: text[:8],
)
@pytest.mark.parametrize("end", ["", "@", "@/", "://x"])
def test_long_names_take_no_time(text: str, end: str) -> None:
    start = time.process_time()
    for name in (text + end, end + text, f"rtsp://host/{text}", f"rtsp{text}{end}"):
        shown(name)
        hide_secrets(name, name)
    assert time.process_time() - start < 10  # quadratic time would be minutes


def test_other_addresses_in_a_text_stay() -> None:
    text = "see https://huggingface.co/settings/tokens: rtsp://***@cam/live (lost), a@b.c?"
    assert hide_secrets(text) == text
    assert hide_secrets("of 'http://a:b@c/d': no") == "of 'http://***@c/d': no"


# --- The library and the commands ----------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names")
    write_exported_model(folder / "shots")
    return folder


@pytest.fixture(scope="module")
def classifier(folder: Path) -> VideoClassifier:
    return VideoClassifier.from_pretrained(folder / "shots", device="cpu", threads=1)


def test_an_address_does_not_show_its_secret() -> None:
    assert SECRET not in repr(live_address("rtsp://user:hunter2@host/x"))


@pytest.mark.parametrize("url", FORMS)
def test_no_error_of_the_library_shows_it(
    classifier: VideoClassifier, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for run in (
        lambda: classifier(url),
        lambda: list(classifier.timeline(url)),
        lambda: list(classifier.stream(url, format="mpegts", timeout=1.0, reconnect=1)),
        lambda: list(classifier.stream(url, timeout=1.0)),
        lambda: list(classifier.stream(url)) if "rtsp://" not in url else classifier(url),
    ):
        with pytest.raises(TimesformerError) as caught:
            run()
        told = traceback.format_exception(caught.value)
        assert SECRET not in "".join([str(caught.value), repr(caught.value), *told])
    (outcome,) = classifier.batch([url])
    assert SECRET not in f"{outcome.error}{outcome.error!r}"
    assert SECRET not in caplog.text


@pytest.mark.parametrize("url", FORMS)
def test_no_error_about_a_model_shows_it(url: str) -> None:
    load = VideoClassifier.from_pretrained
    _check_that_none_shows_it(lambda: load(url), lambda: load(url, revision="main"))


@pytest.mark.parametrize("url", FORMS)
def test_no_error_of_the_exporter_shows_it(url: str) -> None:
    pytest.importorskip("torch")
    from timesformer_exporter import ExportOptions, export  # noqa: PLC0415
    from timesformer_exporter.checkpoints import load_checkpoint  # noqa: PLC0415

    _check_that_none_shows_it(
        lambda: load_checkpoint(url, task="video-classification"),
        lambda: export(ExportOptions(url)),
        lambda: ExportOptions("model", push_to_hub=url),
    )


def _check_that_none_shows_it(*runs: Callable[[], object]) -> None:
    for run in runs:
        with pytest.raises(TimesformerError) as caught:
            run()
        assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_no_error_about_a_path_shows_it() -> None:
    with pytest.raises(TimesformerError, match=r"^https://\*\*\*@host/x: there is no such"):
        VideoClassifier.from_pretrained(Path("https://user:hunter2@host/x"))


def test_an_error_that_quotes_others_shows_no_secrets() -> None:
    error = TimesformerError("the server said: http://user:hunter2@host/x?y does not answer")
    assert str(error) == "the server said: http://***@host/x?*** does not answer"


def run_command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str]:
    """The exit code, and all that was printed."""
    monkeypatch.setattr(sys, "argv", ["timesformer", *arguments])
    monkeypatch.setattr(cli, "discard_output", lambda: None)  # this process still has use for it
    with pytest.raises(SystemExit) as end:
        cli.main()
    printed = capfd.readouterr()
    return int(end.value.code or 0), printed.out + printed.err


Capture = pytest.CaptureFixture[str]


def test_no_command_shows_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.chdir(folder)
    output = "results.jsonl"
    for arguments in (
        ["classify", "shots", *FORMS],
        ["classify", "shots", *FORMS, "--json"],
        ["batch", "shots", *FORMS, "--output", output],
        ["batch", "shots", *FORMS, "--output", output],
        ["batch", "shots", *FORMS, "--output", output, "--retry-failed"],
    ):
        code, printed = run_command(monkeypatch, capfd, *arguments)
        assert code == 2
        assert SECRET not in printed
    lines = [json.loads(line) for line in (folder / output).read_text().splitlines()]
    assert len(lines) == 2 * len(find_videos(FORMS, None))
    assert SECRET not in (folder / output).read_text()


@pytest.mark.parametrize("url", FORMS[::4])
@pytest.mark.parametrize(
    "arguments",
    [
        lambda url: ["timeline", "shots", url],
        lambda url: ["timeline", "shots", url, "--json"],
        lambda url: ["stream", "shots", url, "--timeout", "1s", "--no-reconnect"],
        lambda url: ["stream", "shots", "x.mp4", url],
        lambda url: ["stream", url, "shots"],
        lambda url: ["classify", url, "shots", "--local-files-only"],
        lambda url: ["batch", "shots", url, "--output", url],
        lambda url: ["batch", "shots", url, "--output", f"no/{url}"],
        lambda url: ["classify", "shots", "x.mp4", "--features", url],
        lambda url: ["classify", "shots", "x.mp4", "--top-k", url],
        lambda url: [url],
        lambda url: ["timeline", f"--window={url}", "shots", "x.mp4"],
    ],
)
def test_no_command_shows_it(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Capture,
    arguments: Callable[[str], list[Any]],
    url: str,
) -> None:
    monkeypatch.chdir(folder)
    code, printed = run_command(monkeypatch, capfd, *arguments(url))
    assert code == 2
    assert SECRET not in printed
