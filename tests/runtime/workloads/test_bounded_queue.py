"""The hand-over between threads: bounded, ended from both sides, nothing left waiting."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Generator

import pytest
from timesformer_runtime.workloads.bounded_queue import BoundedQueue

from tests.patience import PATIENCE


def test_everything_arrives_in_order() -> None:
    queue: BoundedQueue[int] = BoundedQueue(2, drop=False)
    thread = queue.fill((number for number in range(1000)), "numbers")
    assert list(queue) == list(range(1000))
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_full_queue_makes_the_producer_wait() -> None:
    given: list[int] = []

    def numbers() -> Generator[int, None, None]:
        for number in range(10):
            given.append(number)
            yield number

    queue: BoundedQueue[int] = BoundedQueue(3, drop=False)
    thread = queue.fill(numbers(), "numbers")
    assert next(iter(queue)) == 0
    thread.join(0.2)
    assert thread.is_alive()
    assert len(given) <= 5  # one was taken, three wait in the queue, one in the producer's hand
    queue.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_dropping_queue_keeps_the_newest() -> None:
    queue: BoundedQueue[int] = BoundedQueue(3, drop=True)
    queue.fill((number for number in range(10)), "numbers").join(PATIENCE)
    assert list(queue) == [7, 8, 9]


def test_an_error_comes_after_what_was_made_before_it() -> None:
    def numbers() -> Generator[int, None, None]:
        yield 1
        raise KeyError("two")

    queue: BoundedQueue[int] = BoundedQueue(5, drop=False)
    thread = queue.fill(numbers(), "numbers")
    received = iter(queue)
    assert next(received) == 1
    with pytest.raises(KeyError, match="two"):
        next(received)
    thread.join(PATIENCE)


def test_closing_ends_an_endless_producer_and_a_waiting_consumer() -> None:
    queue: BoundedQueue[int] = BoundedQueue(1, drop=True)
    producer = queue.fill((number for number in itertools.count()), "numbers")
    idle: BoundedQueue[int] = BoundedQueue(1, drop=True)
    consumer = threading.Thread(target=list, args=(idle,))
    consumer.start()
    for each in (queue, idle):
        each.close()
    for thread in (producer, consumer):
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert list(queue) == []
    assert not queue.put(1)


def test_items_have_sizes() -> None:
    queue: BoundedQueue[int] = BoundedQueue(10, drop=True, size=lambda item: item)
    queue.fill((number for number in (5, 3, 2, 6)), "numbers").join(PATIENCE)
    assert list(queue) == [2, 6]


def test_one_item_always_fits() -> None:
    queue: BoundedQueue[int] = BoundedQueue(10, drop=False, size=lambda item: item)
    queue.fill((number for number in (11, 12)), "numbers")
    assert list(queue) == [11, 12]


def run_program(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_an_interpreter_that_ends_waits_for_its_threads() -> None:
    """Nothing closes this queue: its producer runs on until the interpreter ends."""
    program = """
import itertools, time
from timesformer_runtime.workloads.bounded_queue import BoundedQueue

def numbers():
    try:
        for number in itertools.count():
            time.sleep(0.01)
            yield number
    finally:
        time.sleep(0.3)
        print("closed", flush=True)

queue = BoundedQueue(1, drop=True)
queue.fill(numbers(), "numbers")
print(next(iter(queue)), flush=True)
"""
    result = run_program(program)
    assert (result.returncode, result.stdout.split()) == (0, ["0", "closed"]), result.stderr


def test_an_interpreter_that_ends_wakes_threads_that_wait_for_each_other() -> None:
    """Whatever was registered first, as a race may have it, nobody waits for ever."""
    program = """
import atexit, threading
from timesformer_runtime.workloads.bounded_queue import BoundedQueue

killed = threading.Event()  # as by the end of another process
first, second = (BoundedQueue(1, drop=False) for _ in range(2))

def read():
    yield 0
    killed.wait()
    yield 1

first.fill(read(), "reading")
atexit.register(killed.set)
second.fill((item for item in first), "feeding")
print(next(iter(second)), flush=True)
"""
    result = run_program(program)
    assert (result.returncode, result.stdout.split()) == (0, ["0"]), result.stderr


def test_a_consumer_of_several_queues_does_not_wait() -> None:
    changes = threading.Semaphore(0)
    queue: BoundedQueue[int] = BoundedQueue(1, drop=True, on_change=changes.release)
    assert (queue.poll(), queue.outcome()) == (None, (False, None))
    queue.put(1)
    queue.put(2)
    error = ValueError("broken")
    queue.end(error)
    assert all(changes.acquire(timeout=PATIENCE) for _ in range(3))
    assert queue.outcome() == (False, error)
    assert (queue.poll(), queue.poll()) == (2, None)
    assert queue.outcome() == (True, error)


def test_polling_makes_room_for_a_producer_that_waits() -> None:
    queue: BoundedQueue[int] = BoundedQueue(1, drop=False)
    thread = queue.fill((number for number in range(3)), "numbers")
    found: list[int] = []
    while len(found) < 3:
        item = queue.poll()
        found += [] if item is None else [item]
    thread.join(PATIENCE)
    assert found == [0, 1, 2]
