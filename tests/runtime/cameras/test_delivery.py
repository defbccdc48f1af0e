"""Messages on their way: the spool on disk, the webhook, the broker."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from timesformer_runtime.cameras import mqtt as mqtt_module
from timesformer_runtime.cameras import sending
from timesformer_runtime.cameras.configuration import Configuration
from timesformer_runtime.cameras.delivery import Delivery, Receiver, RefusedError, UnreachableError
from timesformer_runtime.cameras.mqtt import Mqtt
from timesformer_runtime.cameras.receivers import MqttSettings, WebhookSettings
from timesformer_runtime.cameras.spool import Spool, Waiting
from timesformer_runtime.cameras.webhook import Webhook
from timesformer_runtime.errors import InvalidOptionError, OutputError

from tests.mqtt_broker import Broker
from tests.patience import PATIENCE
from tests.webhook_server import WebhookServer

NEVER = threading.Event()


def message(number: int, change: str = "start") -> dict[str, Any]:
    return {
        "id": f"e{number}:{change}",
        "type": change,
        "event": f"e{number}",
        "source": "front door/1",
        "label": "cut",
        "end": 1.0,
    }


@pytest.fixture
def server() -> Iterator[WebhookServer]:
    server = WebhookServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = Broker()
    broker.start()
    yield broker
    broker.stop()


def until(changed: threading.Condition, holds: Callable[[], object]) -> None:
    with changed:
        assert changed.wait_for(lambda: bool(holds()), PATIENCE)


@contextlib.contextmanager
def delivered(spool: Spool, receiver: Receiver, told: list[str]) -> Iterator[Delivery]:
    delivery = Delivery(spool, receiver, told.append)
    yield delivery
    delivery.close(PATIENCE)


# --- the spool -----------------------------------------------------------------------------------


def test_messages_come_in_order_for_each_receiver(tmp_path: Path) -> None:
    with contextlib.closing(Spool(tmp_path / "spool", ["a", "b"], 10)) as spool:
        spool.put([message(0), message(1)])
        first = spool.next("a", NEVER)
        assert first is not None
        spool.done(first.number)
        second = spool.next("a", NEVER)
        assert (first.id, second and second.id) == ("e0:start", "e1:start")
        other = spool.next("b", NEVER)
        assert (other and other.id) == "e0:start"
        assert json.loads(first.body) == message(0)


def test_a_full_spool_drops_the_oldest(tmp_path: Path) -> None:
    with contextlib.closing(Spool(tmp_path / "spool", ["a"], 3)) as spool:
        assert spool.put([message(number) for number in range(3)]) == 0
        assert spool.put([message(3), message(4)]) == 2
        first = spool.next("a", NEVER)
        assert (first and first.id, spool.count("a")) == ("e2:start", 3)


def test_a_killed_process_leaves_what_it_put(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from timesformer_runtime.cameras.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]), ['a'], 10)\n"
        "spool.put([{'id': 'e0:start', 'type': 'start', 'event': 'e0'},\n"
        "           {'id': 'e1:start', 'type': 'start', 'event': 'e1'},\n"
        "           {'id': 'e0:end', 'type': 'end', 'event': 'e0'}])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "spool"
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=PATIENCE)
    assert done.returncode == -signal.SIGKILL
    with contextlib.closing(Spool(path, ["a"], 10)) as spool:
        (end,) = spool.end_interrupted()
        assert (end["id"], end["type"], end["reason"]) == ("e1:end", "end", "restarted")
        assert spool.count("a") == 4
        assert spool.end_interrupted() == []


def test_one_process_at_a_time(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from timesformer_runtime.cameras.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]), ['a'], 10)\nprint('open', flush=True)\ninput()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "spool")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(OutputError, match="spool cannot be used: another process uses it"):
            Spool(tmp_path / "spool", ["a"], 10)
        other.communicate("\n")


def test_what_is_no_spool(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("some text, and more of it\n" * 100)
    with pytest.raises(OutputError, match=r"text cannot be used: .*; name a new file"):
        Spool(tmp_path / "text", ["a"], 10)
    with pytest.raises(OutputError, match=r"none/spool cannot be used: .*; name a new file"):
        Spool(tmp_path / "none" / "spool", ["a"], 10)
    assert (tmp_path / "text").read_text().startswith("some text")


def test_the_database_of_another_program_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE theirs (number INTEGER)")
    before = path.read_bytes()
    with pytest.raises(OutputError, match="database of another program; name a new file"):
        Spool(path, ["a"], 10)
    assert path.read_bytes() == before


def test_an_old_spool_needs_no_memory_that_processes_share(tmp_path: Path) -> None:
    """SQLite's file for it cannot be on the disks of other computers."""
    for _ in range(2):
        with contextlib.closing(Spool(tmp_path / "spool", ["a"], 10)):
            assert not (tmp_path / "spool-shm").exists()


def test_a_spool_of_another_version(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "spool")) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(OutputError, match="another version"):
        Spool(tmp_path / "spool", ["a"], 10)


def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    with contextlib.closing(Spool(tmp_path / "spool", ["a"], 10**6)) as spool:
        spool.put([message(0)])
        (pages,) = spool._database.execute("PRAGMA page_count").fetchone()
        spool._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OutputError, match=r"spool cannot be used: .*full; make room"):
            spool.put([message(number) for number in range(1, 1000)])
        assert spool.count("a") == 1


# --- delivery ------------------------------------------------------------------------------------


class Flaky:
    """A receiver that fails as it is told, and then takes everything."""

    name = "flaky"
    address = "here"

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.taken: list[str] = []

    def send(self, message: Waiting, stopped: threading.Event) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.taken.append(message.id)

    def close(self) -> None:
        pass


def test_a_receiver_that_was_away_gets_all_in_order(tmp_path: Path) -> None:
    told: list[str] = []
    receiver = Flaky(UnreachableError("no route"), UnreachableError("no route"))
    with contextlib.closing(Spool(tmp_path / "spool", ["flaky"], 10)) as spool:
        spool.put([message(0), message(0, "end"), message(1)])
        with delivered(spool, receiver, told):
            assert spool.wait_until_empty(PATIENCE)
    assert receiver.taken == ["e0:start", "e0:end", "e1:start"]
    assert told == [
        "flaky here: no route; events wait in the spool",
        "flaky here: it takes events again",
    ]


def test_a_refused_message_does_not_hold_up_the_others(tmp_path: Path) -> None:
    told: list[str] = []
    receiver = Flaky(RefusedError("it answers 400"))
    with contextlib.closing(Spool(tmp_path / "spool", ["flaky"], 10)) as spool:
        spool.put([message(0), message(1)])
        with delivered(spool, receiver, told):
            assert spool.wait_until_empty(PATIENCE)
    assert receiver.taken == ["e1:start"]
    assert told == ["flaky here: it answers 400, so it will never get the event e0:start"]


def test_closing_does_not_wait_for_a_receiver_that_is_away(tmp_path: Path) -> None:
    receiver = Flaky(*(UnreachableError("away") for _ in range(100)))
    with contextlib.closing(Spool(tmp_path / "spool", ["flaky"], 10)) as spool:
        spool.put([message(0)])
        told: list[str] = []
        with delivered(spool, receiver, told):
            pass
        assert spool.count("flaky") == 1
    assert not [each for each in threading.enumerate() if each.name.startswith("delivery")]


def test_a_spool_that_breaks_is_told_to_the_caller(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", ["flaky"], 10)
    told: list[str] = []
    with delivered(spool, Flaky(), told) as delivery:
        spool.close()
        spool.wake()
        delivery._thread.join(PATIENCE)
        with pytest.raises(OutputError, match="spool cannot be used"):
            delivery.check()


def test_a_spool_that_breaks_leaves_no_thread_and_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = threading.Event()
    monkeypatch.setattr(Webhook, "close", lambda _: closed.set())
    settings = WebhookSettings("http://127.0.0.1:9/")
    sender = sending.Sender(Configuration((), settings, spool=tmp_path / "spool"), lambda _: None)
    assert sender._spool is not None
    sender._spool.close()
    with pytest.raises(OutputError, match="spool cannot be used"):
        sender.close()
    assert closed.is_set()
    assert not [each for each in threading.enumerate() if each.name.startswith("delivery")]


def test_a_receiver_that_breaks_is_told_to_the_caller(tmp_path: Path) -> None:
    with contextlib.closing(Spool(tmp_path / "spool", ["flaky"], 10)) as spool:
        spool.put([message(0)])
        with delivered(spool, Flaky(ZeroDivisionError("a fault")), []) as delivery:
            delivery._thread.join(PATIENCE)
            with pytest.raises(ZeroDivisionError, match="a fault"):
                delivery.check()
        assert spool.count("flaky") == 1


def test_the_receivers_share_the_last_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that the sender waits for an empty spool is taken from the receivers' time."""
    waited: list[float] = []

    class Stuck:
        def __init__(self, *_: object) -> None:
            pass

        def close(self, seconds: float) -> None:
            waited.append(seconds)

    monkeypatch.setattr(sending, "Delivery", Stuck)
    monkeypatch.setattr(sending, "_LAST_SECONDS", 0.1)
    sender = sending.Sender(
        Configuration((), WebhookSettings("http://127.0.0.1:9/"), spool=tmp_path / "spool"),
        lambda _: None,
    )
    sender.put([message(0)])
    sender.close()
    assert waited == [0.0]


# --- the webhook ---------------------------------------------------------------------------------


def waiting(number: int = 0) -> Waiting:
    return Waiting(number, message(number)["id"], json.dumps(message(number)))


def test_a_webhook_posts_json_with_an_id(server: WebhookServer) -> None:
    Webhook(WebhookSettings(server.url, {"X-Key": "abc"})).send(waiting(), NEVER)
    assert server.taken == [message(0)]
    (headers,) = server.headers
    assert headers["Idempotency-Key"] == "e0:start"
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Key"] == "abc"


def test_a_password_of_the_url_becomes_a_header(server: WebhookServer) -> None:
    url = server.url.replace("127.0.0.1", "user:p%40ss@127.0.0.1")
    webhook = Webhook(WebhookSettings(url))
    webhook.send(waiting(), NEVER)
    assert server.headers[0]["Authorization"] == "Basic dXNlcjpwQHNz"
    assert "p@ss" not in webhook.address
    assert "p%40ss" not in webhook.address


@pytest.mark.parametrize(
    ("status", "error"),
    [(503, UnreachableError), (429, UnreachableError), (401, UnreachableError),
     (404, UnreachableError), (302, UnreachableError), (307, UnreachableError),
     (400, RefusedError), (422, RefusedError)],
)  # fmt: skip
def test_answers_of_a_server(server: WebhookServer, status: int, error: type[Exception]) -> None:
    server.statuses = [status]
    with pytest.raises(error, match=f"it answers {status}"):
        Webhook(WebhookSettings(server.url)).send(waiting(), NEVER)
    assert server.gets == 0
    assert len(server.seen) == 1


def test_a_server_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(UnreachableError, match="timed out"):
            Webhook(WebhookSettings(url, timeout=0.3)).send(waiting(), NEVER)
    with pytest.raises(UnreachableError, match=os.strerror(111)):
        Webhook(WebhookSettings(url, timeout=5.0)).send(waiting(), NEVER)


@pytest.mark.parametrize(
    ("scheme", "beginning", "answer"),
    [
        ("http", b"", "timed out"),
        # On a machine that stalls, the time is over before the beginning arrives.
        ("http", b"HTTP/1.1 503 No\r\nServer: ", "it answers 503|timed out"),
        ("https", b"\x16\x03\x03\x40\x00", "timed out"),  # a long message of the handshake
    ],
)
def test_a_server_that_answers_byte_by_byte(scheme: str, beginning: bytes, answer: str) -> None:
    outlasted = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):  # the client ends the connection
                connection.recv(1 << 16)
                connection.sendall(beginning)
                for _ in range(int(PATIENCE / 0.05)):
                    connection.sendall(b"x")
                    time.sleep(0.05)
                outlasted.set()

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"{scheme}://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(UnreachableError, match=answer):
            Webhook(WebhookSettings(url, timeout=0.5)).send(waiting(), NEVER)
        thread.join()
        assert not outlasted.is_set()


@pytest.mark.parametrize("answer", [b"\x1b[31mhello\r\n\r\n", b"HTTP/1.1 20", b"x" * 70_000])
def test_a_server_that_does_not_speak_http(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):  # the client ends the connection
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):  # bytes left over would reset the connection
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(UnreachableError) as caught:
            Webhook(WebhookSettings(url, timeout=PATIENCE)).send(waiting(), NEVER)
        thread.join()
    assert str(caught.value) == "its answer is not HTTP"


def test_a_url_must_be_one_that_can_be_sent() -> None:
    with pytest.raises(InvalidOptionError, match=r"`webhook` is http://.*percent-encode"):
        WebhookSettings("http://host/\u00e4")
    assert WebhookSettings("http://\u00e4.example/%C3%A4").name


# --- the broker ----------------------------------------------------------------------------------


def mqtt(broker: Broker, rest: str = "", user: str = "") -> Mqtt:
    return Mqtt(MqttSettings(f"mqtt://{user}127.0.0.1:{broker.port}{rest}"))


def test_topics_and_availability(broker: Broker) -> None:
    client = mqtt(broker, "/house/cameras", "me:p%40ss@")
    client.send(waiting(), NEVER)
    until(broker.changed, lambda: broker.retained == {"house/cameras/availability": "online"})
    client.close()
    until(broker.changed, lambda: broker.retained["house/cameras/availability"] == "offline")
    (event,) = [each for each in broker.messages if "availability" not in each.topic]
    assert event.topic == "house/cameras/events/front door%2F1"
    assert (json.loads(event.body), event.quality, event.retained) == (message(0), 1, False)
    assert broker.logins == [("me", "p@ss")]


def test_a_client_that_goes_away_leaves_its_last_will(broker: Broker) -> None:
    program = (
        "import sys, threading\n"
        "from timesformer_runtime.cameras.mqtt import Mqtt\n"
        "from timesformer_runtime.cameras.receivers import MqttSettings\n"
        "from timesformer_runtime.cameras.spool import Waiting\n"
        "client = Mqtt(MqttSettings(sys.argv[1]))\n"
        "client.send(Waiting(0, 'x', '{\"source\": \"a\"}'), threading.Event())\n"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    url = f"mqtt://127.0.0.1:{broker.port}"
    subprocess.run([sys.executable, "-c", program, url], check=False, timeout=PATIENCE)
    until(broker.changed, lambda: broker.retained == {"timesformer/availability": "offline"})


def test_a_broker_that_comes_back_gets_what_it_missed(tmp_path: Path) -> None:
    first = Broker()
    first.start()
    told: list[str] = []
    spool = Spool(tmp_path / "spool", ["mqtt"], 10)
    with contextlib.closing(spool), delivered(spool, mqtt(first), told):
        spool.put([message(0)])
        assert spool.wait_until_empty(PATIENCE)
        first.stop()
        spool.put([message(1), message(2)])
        second = Broker(first.port)
        second.start()
        assert spool.wait_until_empty(PATIENCE)
    assert list(dict.fromkeys(ids_of(first) + ids_of(second))) == [
        "e0:start",
        "e1:start",
        "e2:start",
    ]
    assert len(ids_of(first)) == 1
    assert second.retained == {"timesformer/availability": "offline"}
    second.stop()


def ids_of(broker: Broker) -> list[str]:
    """Ids of the events that a broker got, in order."""
    events = [each for each in broker.messages if "availability" not in each.topic]
    return [json.loads(each.body)["id"] for each in events]


def test_a_broker_that_refuses_the_login_is_not_away(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason stays, though the client closes the connection after the refusal."""
    broker.refusal = 5  # not authorized
    monkeypatch.setattr(mqtt_module, "_PATIENCE", 0.0)
    client = mqtt(broker)
    until(broker.changed, lambda: broker.refused >= 2)
    with pytest.raises(UnreachableError, match="the broker refuses the connection: "):
        client.send(waiting(), NEVER)
    client.close()


def test_stopping_while_the_broker_is_silent(broker: Broker) -> None:
    broker.confirms = False
    client, stopped = mqtt(broker), threading.Event()
    threading.Timer(0.3, stopped.set).start()
    with pytest.raises(UnreachableError, match="the program ends"):
        client.send(waiting(), stopped)
    client.close()
