"""The configuration file, and values of the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from timesformer_runtime import InvalidOptionError
from timesformer_runtime.cameras.configuration import (
    Configuration,
    read_configuration,
    sources_of_arguments,
)
from timesformer_runtime.cameras.environment import Environment
from timesformer_runtime.cameras.events import EventRule
from timesformer_runtime.cameras.settings import SourceSettings

DEFAULTS = SourceSettings("defaults", "")
NOTHING = Environment({})


def read(tmp_path: Path, text: str, environment: Environment = NOTHING) -> Configuration:
    path = tmp_path / "cameras.toml"
    path.write_text(text)
    return read_configuration(path, DEFAULTS, environment)


def test_a_whole_file(tmp_path: Path) -> None:
    environment = Environment({"DOOR": "p@ss/w:rd", "TOKEN": "to ken"})
    found = read(
        tmp_path,
        """
        spool = "events.sqlite3"
        spool_events = 500

        [defaults]
        window = 2
        stride = 1.0
        enter = 0.7
        labels = ["cut", "fade_in"]
        [defaults.label.cut]
        gap = 3.0

        [source.door]
        address = "rtsp://me:${DOOR}@host/live"
        timeout = 5.0
        static_level = 6
        [source.door.label.cut]
        min_duration = 2.0

        [source."back yard"]
        address = "/dev/video0"
        format = "v4l2"
        window = 8.0
        labels = ["fade_in"]

        [webhook]
        url = "https://host/events"
        headers = { Authorization = "Bearer ${TOKEN}" }

        [mqtt]
        url = "mqtts://me:${DOOR}@broker"
        topic = "house"
        """,
        environment,
    )
    door, yard = found.sources
    assert (door.name, door.address) == ("door", "rtsp://me:p%40ss%2Fw%3Ard@host/live")
    assert (door.windows.length, door.windows.stride, door.live.timeout) == (2, 1.0, 5.0)
    assert door.static_level == 6
    assert door.rules.rule("cut") == EventRule(enter=0.7, gap=3.0, min_duration=2.0)
    assert door.rules.rule("fade_in") == EventRule(enter=0.7)
    assert door.rules.rule("none") is None
    assert (yard.name, yard.live.format, yard.windows.length) == ("back yard", "v4l2", 8.0)
    assert yard.rules.rule("cut") is None
    assert found.webhook is not None
    assert found.webhook.headers == {"Authorization": "Bearer to ken"}
    assert found.mqtt is not None
    assert found.mqtt.credentials == ("me", "p@ss/w:rd")
    assert (found.mqtt.host, found.mqtt.port, found.mqtt.prefix) == ("broker", 8883, "house")
    assert (found.spool, found.spool_events) == (Path("events.sqlite3"), 500)
    for shown in (repr(found), repr(door)):
        assert "p@ss" not in shown
        assert "p%40ss" not in shown
        assert "to ken" not in shown


def test_a_label_has_the_nearest_value_of_each_key(tmp_path: Path) -> None:
    """A label's own value, of the source and else of the defaults; then the usual ones."""
    (door,) = read(
        tmp_path,
        """
        [defaults]
        enter = 0.7
        leave = 0.2
        [defaults.label.cut]
        gap = 3.0
        min_duration = 1.0
        [source.door]
        address = "udp://host:1"
        enter = 0.9
        [source.door.label.cut]
        min_duration = 2.0
        """,
    ).sources
    assert door.rules.rule("cut") == EventRule(enter=0.9, leave=0.2, gap=3.0, min_duration=2.0)
    assert door.rules.rule("fade") == EventRule(enter=0.9, leave=0.2)


SOURCE = '[source.a]\naddress = "udp://host:1"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source = [", "cameras.toml: it is not TOML"),
        ("\x00", "cameras.toml: it is not TOML"),
        ("", "cameras.toml: it has no source; give at least one"),
        ("[source]", "cameras.toml: it has no source; give at least one"),
        ("[" * 5000, "cameras.toml: it is not TOML"),
        ("[sources]", "the file has the unknown key sources; the keys are spool"),
        ("source = 5", "source is 5; it must be a table"),
        ("[source]\na = 5", "source.a is 5; it must be a table"),
        ("[source.a]", "source.a: 'address' is missing"),
        ("[source.a]\naddress = 5", "source.a: 'address' is missing or not a string"),
        (SOURCE + "windows = 5", "source.a has the unknown key windows"),
        (SOURCE + "window = 'x'", "source.a: 'window' is 'x'"),
        (SOURCE + "timeout = -1", "source.a: 'timeout' is -1"),
        (SOURCE + f"timeout = {10**30}", "source.a: 'timeout' is 10*; it must be a number"),
        (SOURCE + f"enter = {10**400}", "source.a: 'enter' is 10.*; it must be a number"),
        (SOURCE + f"gap = {10**400}", "source.a: 'gap' is 10.*; it must be a number"),
        (SOURCE + f"window = {10**400}", "source.a: 'window' is 10.{1,300} seconds; it must be"),
        (SOURCE + f"enter = 1{'0' * 5000}", "cameras.toml: it is not TOML"),
        (SOURCE + "enter = 0.1", "source.a: 'leave' is 0.4 and 'enter' is 0.1"),
        (SOURCE + "label.cut = {enter = 0.1}", "source.a: label.cut: 'leave' is 0.4 and"),
        (
            "[defaults.label.cut]\nleave = 0.5\n" + SOURCE + "enter = 0.45\nleave = 0.3",
            "source.a: label.cut: 'leave' is 0.5 and 'enter' is 0.45",
        ),
        (SOURCE + "labels = 'cut'", "source.a: 'labels' is 'cut'; it must be a list"),
        (SOURCE + "labels = []", "source.a: 'labels' is .*; it must be a list"),
        (SOURCE + "static_level = 300", "source.a: 'static_level' is 300"),
        (SOURCE + "[source.a.label]\ncut = 1", "source.a: label.cut is 1"),
        (SOURCE + "[source.a.label.cut]\nlabels = []", "label.cut has the unknown key labels"),
        ("[defaults]\naddress = 'x'", "defaults has the unknown key address"),
        ('[source.a]\naddress = "rtsp://u:${NONE}@h"', "variable NONE is not set"),
        ("[source.' ']\naddress = 'x'", "a source's name is ' '"),
        ('[source."a\\u0007"]\naddress = "x"', "must be printable"),
        ("spool = 5", "'spool' is 5; it must be the name of a file"),
        ('spool = "a\\u0000b"', "'spool' is .*; it must be the name of a file"),
        (SOURCE + "[webhook]", "webhook: 'url' is missing"),
        (SOURCE + "[mqtt]", "mqtt: 'url' is missing"),
        ("[webhook]\nurl = 'http://a..b/'", "'webhook' is .*; it must be a URL"),
        ("[webhook]\nurl = 'http://h/'\ntimeout = 1e11", "'timeout' of the webhook is 10*"),
        ("[mqtt]\nurl = 'mqtts://h'\nca_file = 5", "'ca_file' is 5; it must be the name"),
        ('[mqtt]\nurl = "mqtts://h"\nca_file = "a\\u0000b"', "'ca_file' is .*; it must be"),
        ("spool = 'x'", "'spool' has no effect without 'webhook' or 'mqtt'"),
        ("[webhook]\nurl = 'http://h/'", "'spool' is missing"),
        ("spool_events = 0", "'spool_events' is 0"),
        ("[webhook]\nurls = 'x'", "webhook has the unknown key urls"),
        ("[webhook]\nurl = 5", "webhook: 'url' is missing or not a string"),
        ("[webhook]\nurl = 'ftp://h/'", "'webhook' is ftp://h/; it must be a URL"),
        ("[webhook]\nurl = 'http://h:99999/'", "'webhook' is .*; it must be a URL"),
        ("[webhook]\nurl = 'http://h/'\ntimeout = 0", "'timeout' of the webhook is 0"),
        ("[webhook]\nurl = 'http://h/'\nheaders = {a = 1}", "webhook.headers: a is not a string"),
        ("[webhook]\nurl = 'http://h/'\nheaders = {a = \"\\n\"}", "characters that a header"),
        ("[mqtt]\nurl = 'mqtt://h/#'", "must end after its topic"),
        ("[mqtt]\nurl = 'mqtt://h/a%23'", "the topic of MQTT is 'a#'"),
        ("[mqtt]\nurl = 'mqtt://h/a'\ntopic = 'b'", "both name a topic"),
        ("[mqtt]\nurl = 'mqtt://h'\ntopic = 5", "'topic' is 5"),
        ("[mqtt]\nurl = 'mqtt://h'\nca_file = 'x'", "'ca_file' is for mqtts"),
        ("[mqtt]\nurl = 'mqtts://h'\nca_file = ''", "'ca_file' is ''; it must be the name"),
        (SOURCE + "drop = 1", "source.a: 'drop' is 1; it must be true or false"),
        (SOURCE + "gap = '4s'", "source.a: 'gap' is '4s'; it must be a number of seconds"),
        (SOURCE + f"static_level = {10**400}", "source.a: 'static_level' is 1000"),
        (f"spool_events = {10**400}", "'spool_events' is 1000"),
        (f"[webhook]\nurl = 'http://h/'\ntimeout = {10**400}", "'timeout' of the webhook is 1000"),
        (f"[mqtt]\nurl = 'mqtt://h'\ntopic = {10**400}", "'topic' is 1000"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "cameras.toml"))
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(InvalidOptionError, match=f"{path}: it cannot be read.*; give a TOML"):
            read_configuration(path, DEFAULTS, NOTHING)
    (tmp_path / "large.toml").write_text("# " + "x" * (1 << 20))
    with pytest.raises(InvalidOptionError, match="more than 1048576 bytes"):
        read_configuration(tmp_path / "large.toml", DEFAULTS, NOTHING)


def test_names_of_arguments() -> None:
    given = (
        "door=rtsp://u:secret@host/a",
        "rtsp://u:secret@host/b",
        "a=b.mp4",
        "http://h/?x=udp://y",
    )
    found = sources_of_arguments(given, DEFAULTS, NOTHING)
    assert [source.name for source in found] == [
        "door",
        "rtsp://***@host/b",
        "a=b.mp4",
        "http://h/?***",
    ]
    assert [source.address for source in found] == [
        "rtsp://u:secret@host/a",
        "rtsp://u:secret@host/b",
        "a=b.mp4",
        "http://h/?x=udp://y",
    ]


def test_values_that_were_filled_in_are_hidden() -> None:
    environment = Environment({"A": "p@ss word", "B": "xyz", "C": ""})
    assert environment.in_url("rtsp://u:${A}@h") == "rtsp://u:p%40ss%20word@h"
    assert environment.in_text("${A} ${B} $B") == "p@ss word xyz $B"
    assert environment.hide("wrong: p@ss word, p%40ss%20word") == "wrong: ***, ***"
    with pytest.raises(InvalidOptionError, match="variable C is empty"):
        environment.in_url("${C}")


def test_short_values_are_hidden_where_they_stand_alone() -> None:
    environment = Environment({"KEY": "a1", "ONE": "7"})
    environment.in_url("rtsp://h/${KEY}/${ONE}")
    assert environment.hide("rtsp://h/a1/7: no a1b in 17 s") == "rtsp://h/***/***: no a1b in 17 s"


def test_a_variable_may_hold_a_whole_url() -> None:
    url = "rtsp://me:p%40ss@host/live"
    environment = Environment({"DOOR": url})
    door, other = sources_of_arguments(("door=${DOOR}", "${DOOR}"), DEFAULTS, environment)
    assert (door.name, door.address) == ("door", url)
    assert (other.name, other.address) == ("${DOOR}", url)
    assert environment.in_url("${DOOR}") == url
    assert environment.hide(f"{url} is lost") == "*** is lost"


@pytest.mark.parametrize("text", ["rtsp://u:${A B}@h/", "rtsp://u:${A@h/", "rtsp://u:${1A}@h/"])
def test_what_is_not_the_name_of_a_variable(text: str) -> None:
    environment = Environment({"A": "p@ss word"})
    message = r"'\$\{' must begin the name of a variable, as in \$\{PASSWORD\}"
    for fill in (environment.in_address, environment.in_url, environment.in_text):
        with pytest.raises(InvalidOptionError, match=message) as caught:
            fill(text)
        assert "u:" not in str(caught.value)
