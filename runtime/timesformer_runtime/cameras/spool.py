"""Spool: holds messages on disk until each receiver has them.

An SQLite database, in which each change is one transaction that is on the disk when it returns. So
a message outlives a kill and a power cut, and the start of an event is never without its end.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from timesformer_runtime.cameras.messages import Message, end_after_restart
from timesformer_runtime.errors import OutputError

_FORMAT = 1  # of the tables
_TABLES = """
CREATE TABLE IF NOT EXISTS waiting (
    number INTEGER PRIMARY KEY AUTOINCREMENT, receiver TEXT NOT NULL, id TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS by_receiver ON waiting (receiver, number);
CREATE TABLE IF NOT EXISTS begun (event TEXT PRIMARY KEY, body TEXT NOT NULL);
"""


class Waiting(NamedTuple):
    """A message that waits for a receiver."""

    number: int
    id: str
    body: str


class Spool:
    """Messages that wait for receivers. Any thread may use it; one process at a time.

    Args:
        path: The file; made where it does not exist.
        receivers: Names of the receivers that new messages are for.
        most: Most messages that wait for one receiver; beyond, the oldest ones are dropped.

    Raises:
        OutputError: The file cannot be written, is not a spool, or another process uses it.
    """

    def __init__(self, path: Path, receivers: Sequence[str], most: int) -> None:
        self._path = path
        self._receivers = tuple(receivers)
        self._most = most
        self._changed = threading.Condition()
        with self._explained_errors():
            self._database = sqlite3.connect(
                path, timeout=0.5, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._database.close()
                raise

    def close(self) -> None:
        """Closes the file; messages that wait stay in it."""
        with self._changed:
            self._database.close()

    def put(self, messages: Sequence[Message]) -> int:
        """Adds messages for all receivers; they are on the disk when this returns.

        Returns:
            The number of older messages that were dropped to make room.

        Raises:
            OutputError: The disk is full, or does not take them.
        """
        with self._changed, self._transaction():
            for message in messages:
                self._put(message)
            dropped = sum(self._drop_oldest(receiver) for receiver in self._receivers)
            self._changed.notify_all()
        return dropped

    def end_interrupted(self) -> list[Message]:
        """Ends the events that a killed process had begun; their ends wait for the receivers."""
        with self._changed, self._explained_errors():
            rows = self._database.execute("SELECT body FROM begun ORDER BY rowid").fetchall()
        messages = [end_after_restart(json.loads(body)) for (body,) in rows]
        self.put(messages)
        return messages

    def next(self, receiver: str, stopped: threading.Event) -> Waiting | None:
        """Waits for the oldest message for a receiver; gives None once ``stopped`` is set."""
        with self._changed:
            while not stopped.is_set():
                with self._explained_errors():
                    row = self._database.execute(
                        "SELECT number, id, body FROM waiting WHERE receiver = ? "
                        "ORDER BY number LIMIT 1",
                        (receiver,),
                    ).fetchone()
                if row is not None:
                    return Waiting(*row)
                self._changed.wait()
        return None

    def done(self, number: int) -> None:
        """Takes out a message that its receiver has."""
        with self._changed, self._transaction():
            self._database.execute("DELETE FROM waiting WHERE number = ?", (number,))
            self._changed.notify_all()

    def count(self, receiver: str) -> int:
        """Number of messages that wait for a receiver."""
        with self._changed, self._explained_errors():
            query = "SELECT count(*) FROM waiting WHERE receiver = ?"
            (count,) = self._database.execute(query, (receiver,)).fetchone()
            return int(count)

    def wake(self) -> None:
        """Makes all threads that wait in ``next`` look whether they are stopped."""
        with self._changed:
            self._changed.notify_all()

    def wait_until_empty(self, seconds: float) -> bool:
        """Waits until the receivers have all messages; returns False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(
                lambda: all(self.count(receiver) == 0 for receiver in self._receivers), seconds
            )

    def _prepare(self) -> None:
        # Before anything is read: SQLite then needs no memory that processes share, which disks of
        # other computers do not give.
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._check_format()
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            for statement in _TABLES.strip().split(";"):
                self._database.execute(statement)
            self._database.execute(f"PRAGMA user_version = {_FORMAT}")

    def _check_format(self) -> None:
        """Makes sure that the file is a spool, or a new one, before anything changes it."""
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version == 0 and tables:
            raise sqlite3.DatabaseError("it is the database of another program")
        if version not in {0, _FORMAT}:
            raise sqlite3.DatabaseError("another version of timesformer-onnx wrote it")

    def _put(self, message: Message) -> None:
        body = json.dumps(message)
        if message["type"] == "start":
            values = (message["event"], body)
            self._database.execute("INSERT OR REPLACE INTO begun VALUES (?, ?)", values)
        else:
            self._database.execute("DELETE FROM begun WHERE event = ?", (message["event"],))
        self._database.executemany(
            "INSERT INTO waiting (receiver, id, body) VALUES (?, ?, ?)",
            [(receiver, message["id"], body) for receiver in self._receivers],
        )

    def _drop_oldest(self, receiver: str) -> int:
        return self._database.execute(
            "DELETE FROM waiting WHERE number IN (SELECT number FROM waiting WHERE receiver = ? "
            "ORDER BY number DESC LIMIT -1 OFFSET ?)",
            (receiver, self._most),
        ).rowcount

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._explained_errors():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _explained_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if "locked" in str(error):
                reason = "another process uses it; give each process its own"
            elif getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                reason = f"{error}; make room"
            else:
                reason = f"{error}; name a new file in a folder that can be written"
            raise OutputError(f"the spool {self._path} cannot be used: {reason}") from error
