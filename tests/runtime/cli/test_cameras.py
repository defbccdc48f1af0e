"""``timesformer stream`` with many sources and events, as users run it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from timesformer_runtime import InvalidOptionError, VideoClassifier
from timesformer_runtime.cli.stream import stream

from tests.command_line import COMMAND, Result, timesformer
from tests.live_sources import free_udp_url, sender
from tests.mqtt_broker import Broker
from tests.patience import PATIENCE
from tests.tiny_graphs import write_exported_model
from tests.video_files import moving_pictures, write_video
from tests.webhook_server import WebhookServer

SHORT = ["--window", "0.4s", "--stride", "0.4s"]
ALWAYS = ["--events", "--enter", "0", "--leave", "0"]  # every label, from the first window on


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cameras")
    write_exported_model(folder / "shots")
    write_video(folder / "a.mp4", moving_pictures(60, seed=1))
    write_video(folder / "b.mp4", moving_pictures(30, seed=2))
    return folder


def run(folder: Path, *arguments: object, **environment: str) -> Result:
    return timesformer(folder, "stream", "shots", *arguments, env=os.environ | environment)


class Running:
    """The command while it runs; its lines as they come."""

    def __init__(self, folder: Path, arguments: Sequence[object], **environment: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "stream", "shots", *map(str, arguments)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        self.lines: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self.changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._read, args=(self.process.stdout, True), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, False), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, pipe: Any, is_output: bool) -> None:
        for line in pipe:
            with self.changed:
                if is_output:
                    self.lines.append(json.loads(line))
                else:
                    self.errors.append(line)
                self.changed.notify_all()

    def until(self, holds: Any) -> None:
        with self.changed:
            assert self.changed.wait_for(holds, PATIENCE), (self.lines, self.errors)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)
        return code


@contextlib.contextmanager
def running(folder: Path, *arguments: object, **environment: str) -> Iterator[Running]:
    command = Running(folder, arguments, **environment)
    try:
        yield command
    finally:
        command.process.kill()
        command.process.wait()


def test_lines_name_their_source(folder: Path) -> None:
    result = run(folder, "a.mp4", "b.mp4", *SHORT, "--json", "--top-k", "2")
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    classifier = VideoClassifier.from_pretrained(folder / "shots")
    for name, count in (("a.mp4", 6), ("b.mp4", 3)):
        own = [line for line in lines if line["source"] == name]
        expected = classifier.stream(folder / name, window=0.4, stride=0.4)
        assert len(own) == count
        for line, one in zip(own, expected, strict=False):
            assert line["start"] == pytest.approx(one.start)
            assert line["frames"]["indices"] == list(one.indices)
            assert [each["label"] for each in line["predictions"]] == [
                each["label"] for each in one.predictions[:2]
            ]
            assert (line["static"], line["motion"]) == (False, None)
    assert "a.mp4: windows 6, static 0, skipped 0" in result.stderr
    assert "least against most windows of a source: 0.50" in result.stderr


def test_a_single_source_may_have_a_name(folder: Path) -> None:
    with sender(url := free_udp_url()), running(folder, f"door={url}", *SHORT, "--json") as command:
        command.until(lambda: command.lines)
        assert command.end(signal.SIGTERM) == 0
    assert {line["source"] for line in command.lines} == {"door"}


def test_the_table_has_windows_without_motion(folder: Path) -> None:
    result = run(folder, "a.mp4", *SHORT, "--skip-static", "--static-level", "255")
    _, *rows = (line.split() for line in result.stdout.splitlines())
    assert len(rows) == 6
    assert all(row[2] == "(static)" for row in rows)


def test_the_table_names_the_source(folder: Path) -> None:
    result = run(folder, "a.mp4", "b.mp4", *SHORT)
    header, *rows = (line.split() for line in result.stdout.splitlines())
    assert header[-1] == "source"
    assert {row[-1] for row in rows} == {"a.mp4", "b.mp4"}


def test_events_of_a_file(folder: Path) -> None:
    result = run(folder, "a.mp4", *SHORT, *ALWAYS, "--label", "cut")
    assert result.returncode == 0, result.stderr
    start, end = (json.loads(line) for line in result.stdout.splitlines())
    assert start["id"] == f"{start['event']}:start"
    assert end["id"] == f"{start['event']}:end"
    assert (start["type"], start["source"], start["label"]) == ("start", "a.mp4", "cut")
    assert (start["start"], start["end"], start["start_time"]) == (0.0, 0.4, None)
    assert (end["start"], end["end"], end["reason"]) == (0.0, 2.4, "ended")


def test_the_defaults_that_the_guide_states_can_be_given(folder: Path) -> None:
    given = ["--enter", "0.6", "--leave", "0.4", "--gap", "0s", "--min-duration", "0s"]
    result = run(folder, "a.mp4", *SHORT, "--events", *given)
    assert result.returncode == 0, result.stderr
    refused = run(folder, "a.mp4", *SHORT, "--report", "0s")
    assert refused.returncode == 2
    assert "'0s' is not a duration above 0" in refused.stderr


def test_windows_without_motion_are_reported(folder: Path, tmp_path: Path) -> None:
    still = write_video(tmp_path / "still.mp4", moving_pictures(1).repeat(30, axis=0))
    result = run(folder, still, *SHORT, "--skip-static", "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == 3
    for line in lines:
        assert (line["static"], line["predictions"]) == (True, [])
        assert 0 <= line["motion"] <= 4.0
    assert "windows 0, static 3" in result.stderr
    everything = run(folder, "a.mp4", *SHORT, "--skip-static", "--static-level", "255", "--json")
    assert all(json.loads(line)["static"] for line in everything.stdout.splitlines())


def test_the_webhook_and_the_broker_get_the_events(folder: Path, tmp_path: Path) -> None:
    server, broker = WebhookServer(), Broker()
    server.start()
    broker.start()
    result = run(
        folder,
        "a.mp4",
        *SHORT,
        *ALWAYS,
        *("--webhook", server.url, "--spool", tmp_path / "spool"),
        *("--mqtt", f"mqtt://127.0.0.1:{broker.port}/house"),
    )
    server.stop()
    broker.stop()
    assert result.returncode == 0, result.stderr
    printed = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(printed) == 8
    assert server.taken == printed
    published = [m for m in broker.messages if m.topic == "house/events/a.mp4"]
    assert [json.loads(message.body) for message in published] == printed
    assert broker.retained == {"house/availability": "offline"}


def test_a_kill_loses_and_doubles_nothing(folder: Path, tmp_path: Path) -> None:
    """The receiver fails, the program is killed, and later both are there again.

    A receiver that looks at the ids has each event once.
    """
    server = WebhookServer()
    server.statuses = [204, 503, 204, *[503] * 1000]
    server.start()
    url = free_udp_url()
    arguments = [f"door={url}", *SHORT, "--events", "--enter", "0", "--leave", "0"]
    receiver = ["--webhook", server.url, "--spool", tmp_path / "spool"]
    with sender(url), running(folder, *arguments, *receiver) as command:
        command.until(lambda: len(command.lines) >= 4)
        with server.changed:
            assert server.changed.wait_for(lambda: len(server.taken) == 2, PATIENCE)
        assert command.end(signal.SIGKILL) == -signal.SIGKILL
        printed = [line["id"] for line in command.lines]
        server.statuses.clear()
        with running(folder, *arguments, *receiver) as again:
            again.until(lambda: len([x for x in again.lines if x["type"] == "start"]) >= 4)
            assert again.end(signal.SIGTERM) == 0
            printed += [line["id"] for line in again.lines]
    server.stop()
    events = {event["id"]: event for event in server.taken}
    assert list(events) == printed
    assert len(server.taken) <= len(events) + 1  # killed before the answer was noted
    ends = {event["event"]: event["reason"] for event in events.values() if event["type"] == "end"}
    starts = [event["event"] for event in events.values() if event["type"] == "start"]
    assert sorted(ends) == sorted(starts)
    assert sorted(ends.values()) == ["restarted"] * 4 + ["stopped"] * 4


def test_sighup_reads_the_file_again(folder: Path, tmp_path: Path) -> None:
    one, two = free_udp_url(), free_udp_url()
    config = tmp_path / "cameras.toml"
    table = '[source.{}]\naddress = "{}"\n[defaults]\nwindow = 0.4\nstride = 0.4\n'
    config.write_text(table.format("one", one))
    with sender(one), sender(two), running(folder, "--config", config, "--json") as command:
        command.until(lambda: command.lines)
        config.write_text("[source")
        command.process.send_signal(signal.SIGHUP)
        command.until(lambda: any("the old configuration stays" in x for x in command.errors))
        config.write_text(table.format("one", one))
        command.process.send_signal(signal.SIGHUP)
        command.until(lambda: any("was read again: 1 source\n" in x for x in command.errors))
        config.write_text(table.format("one", one) + f'[source.two]\naddress = "{two}"\n')
        command.process.send_signal(signal.SIGHUP)
        command.until(lambda: any(line["source"] == "two" for line in command.lines))
        count = len(command.lines)
        command.until(lambda: any(line["source"] == "one" for line in command.lines[count:]))
        assert command.end(signal.SIGINT) == 130
    assert all(line["reconnects"] == 0 for line in command.lines)
    mine = [line["start"] for line in command.lines if line["source"] == "one"]
    assert mine == sorted(mine)
    assert len([x for x in command.errors if "is not TOML" in x]) == 1
    assert command.errors[-1] == "timesformer: interrupted\n"


def test_sighup_checks_the_limits_of_new_sources(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "cameras.toml"
    file = f'[source.one]\naddress = "{folder / "a.mp4"}"\n'
    live = '[source.two]\naddress = "udp://127.0.0.1:9"\n'
    config.write_text(file)

    def watch(_: object, read: Callable[[], object], *__: object) -> None:
        config.write_text(file + live)
        message = "^two: `max_packets` is for files; this source is live"
        with pytest.raises(InvalidOptionError, match=message):
            read()

    monkeypatch.setattr("timesformer_runtime.cli.cameras.watch", watch)
    arguments = [str(folder / "shots"), "--config", str(config), "--max-packets", "5"]
    stream.main(arguments, standalone_mode=False)


def test_a_wrong_label_in_the_file_names_its_source(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "cameras.toml"
    config.write_text(
        '[source.one]\naddress = "a.mp4"\n[source.two]\naddress = "b.mp4"\nlabels = ["jump"]\n'
    )
    result = run(folder, "--config", config, "--events")
    assert result.returncode == 2
    assert "timesformer: two: the model has no label 'jump'" in result.stderr


def test_counts_are_printed_again_and_again(folder: Path) -> None:
    url = free_udp_url()
    with (
        sender(url),
        running(
            folder, f"door={url}", *SHORT, "--events", "--enter", "1", "--report", "0.5s"
        ) as command,
    ):
        command.until(lambda: len(command.lines) >= 2 and command.lines[-1]["fairness"] == 1.0)
        command.until(lambda: command.lines[-1]["sources"]["door"]["windows"] > 0)
        assert command.end(signal.SIGTERM) == 0
    assert command.errors[-1] == "timesformer: stopped\n"


def test_passwords_of_the_environment_appear_nowhere(folder: Path, tmp_path: Path) -> None:
    spool, config = tmp_path / "spool", tmp_path / "cameras.toml"
    config.write_text(
        f'spool = "{spool}"\n'
        '[source.a]\naddress = "rtsp://me:${SECRET}@127.0.0.1:9/${SECRET}"\nreconnect = 0\n'
        '[source.b]\naddress = "rtmp://127.0.0.1:9/live/${SECRET}"\nreconnect = 0\n'
        '[source.c]\naddress = "b.mp4"\n'
        '[webhook]\nurl = "http://me:${SECRET}@127.0.0.1:9/${SECRET}"\n'
        '[mqtt]\nurl = "mqtt://me:${SECRET}@127.0.0.1:9"\n'
    )
    secret = "Gr3en/hou se"
    result = run(folder, "--config", config, *SHORT, *ALWAYS, SECRET=secret)
    assert result.returncode == 2, result.stderr
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for text in (result.stdout, result.stderr, files.decode(errors="replace")):
        for form in (secret, "Gr3en%2Fhou%20se", "Gr3en", "hou%20se"):
            assert form not in text, text
    assert "webhook http://***@127.0.0.1:9" in result.stderr


def test_a_missing_library_is_one_line(folder: Path, tmp_path: Path) -> None:
    arguments = ["stream", "shots", "a.mp4", "--events", "--mqtt", "mqtt://h", "--spool"]
    program = (
        "import sys; sys.modules['paho'] = None; import timesformer_runtime.__main__ as m\n"
        f"sys.argv = ['timesformer', *{arguments}, sys.argv[1]]; m.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "spool")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert 'pip install "timesformer-onnx[serve]"' in done.stderr.splitlines()[-1]
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument"),
        (["udp://127.0.0.1:9", "none.mp4"], "none.mp4: there is no such file"),
        (["a.mp4", "a.mp4"], "two sources have the name a.mp4"),
        (["a.mp4", "--enter", "0.5"], "--enter has no effect without --events"),
        (["a.mp4", "--webhook", "http://h"], "--webhook has no effect without --events"),
        (["a.mp4", "--events", "--enter", "0.1"], "--leave is 0.4 and --enter is 0.1"),
        (["a.mp4", "--events", "--enter", "70"], "--enter is 70; the model's scores are from 0"),
        (["a.mp4", "--events", "--top-k", "3"], "--top-k has no effect with --events"),
        (["a.mp4", "--events", "--label", "x"], "the model has no label 'x'"),
        (["a.mp4", "--events", "--webhook", "http://h"], "--spool is missing"),
        (["a.mp4", "--events", "--spool", "x"], "--spool has no effect without"),
        (["a.mp4", "--events", "--mqtt", "h", "--spool", "x"], "--mqtt is h; it must be a URL"),
        (["a.mp4", "--static-level", "4"], "--static-level has no effect without --skip-static"),
        (["a.mp4", "b.mp4", "--timeout", "3s"], "--timeout is for live sources"),
        (["udp://127.0.0.1:9", "--hardware", "abacus"], "--hardware is 'abacus'"),
        (["a.mp4", "--hardware", "cuda"], "--hardware is for live sources"),
        (["a=udp://127.0.0.1:9", "a.mp4", "--max-packets", "5"], "--max-packets is for files"),
        (["--config", "none.toml"], "none.toml: it cannot be read: No such file"),
        (["a.mp4", "--config", "none.toml"], "give sources or --config"),
        (["rtsp://u:${NONE_SUCH}@h/", "--events"], "environment variable NONE_SUCH is not set"),
        (["rtsp://u:${NONE_SUCH}@h/"], "environment variable NONE_SUCH is not set"),
    ],
)
def test_bad_input_is_one_line(folder: Path, arguments: list[str], message: str) -> None:
    result = run(folder, *arguments)
    lines = [line for line in result.stderr.splitlines() if line.startswith("timesformer: ")]
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1, result.stderr
    assert message in lines[0]
    assert result.stdout == ""
    assert not (folder / "x").exists()
