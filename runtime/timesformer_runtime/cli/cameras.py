"""``timesformer stream`` for many sources: prints windows or events, and sends events on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from timesformer_runtime.cameras.messages import Message, Messages
from timesformer_runtime.cameras.sending import Sender, sending
from timesformer_runtime.cameras.watching import CameraResult, Cameras, errors_of, fairness
from timesformer_runtime.cli.output import (
    BAD_INPUT,
    INTERRUPTED,
    echo,
    fail_at_once,
)
from timesformer_runtime.cli.segment_lines import Rows, damage_of
from timesformer_runtime.cli.signals import Signals
from timesformer_runtime.errors import TimesformerError
from timesformer_runtime.results import Ranking

if TYPE_CHECKING:
    from timesformer_runtime.cameras.configuration import Configuration
    from timesformer_runtime.classifier import VideoClassifier
    from timesformer_runtime.workloads.stream import LiveResult

_FACTS = ("latency", "dropped", "damaged", "source")
_STOPPED = 0  # exit code after SIGTERM


@dataclasses.dataclass(frozen=True)
class Printing:
    """Options for printing.

    Attributes:
        events: True for events in place of windows.
        as_json: True for JSON lines of windows.
        top_k: Labels per window.
        report: Seconds between two reports of the counts; None for none.
    """

    events: bool
    as_json: bool
    top_k: int
    report: float | None


def watch(
    classifier: VideoClassifier,
    read: Callable[[], Configuration],
    configuration: Configuration,
    printing: Printing,
    signals: Signals,
    tell: Callable[[str], None],
) -> None:
    """Classifies the sources until all of them have ended, or until SIGINT or SIGTERM.

    Args:
        classifier: The model.
        read: Reads the configuration again, for SIGHUP.
        configuration: The configuration as read before.
        printing: Options for printing.
        signals: Notes of the signals that ask to end, or to read the configuration again.
        tell: Prints a sentence on stderr, without secrets.
    """
    ranking = Ranking(top_k=None if printing.events else printing.top_k)
    _check_rules(classifier, configuration)
    cameras = Cameras(classifier, configuration.sources, ranking, tell)
    with contextlib.closing(cameras):
        with sending(configuration, tell) as sender:
            signals.wake = cameras.wake
            printer = _Printer(classifier, cameras, printing, sender, tell)
            printer.run(signals, read)
        # The threads of the sources may wait for the network until their timeout.
        if signals.stop == signal.SIGINT:
            fail_at_once("interrupted", INTERRUPTED)
        elif signals.stop is not None:
            fail_at_once("stopped", _STOPPED)
    if printer.failed:
        raise SystemExit(BAD_INPUT)


def _check_rules(classifier: VideoClassifier, configuration: Configuration) -> None:
    function = Ranking().function_of(classifier.model.problem_type)
    for source in configuration.sources:
        with errors_of(source):
            source.rules.check(classifier.labels, function)


class _Printer:
    """Prints the results of cameras, counts and events."""

    def __init__(
        self,
        classifier: VideoClassifier,
        cameras: Cameras,
        printing: Printing,
        sender: Sender,
        tell: Callable[[str], None],
    ) -> None:
        self._classifier = classifier
        self._cameras = cameras
        self._sender = sender
        self._printing = printing
        self._tell = tell
        self._rows = Rows(classifier.labels, _FACTS)
        self._messages = Messages()
        self._next_report = time.monotonic() + (printing.report or math.inf)
        self.failed = False

    def run(self, signals: Signals, read: Callable[[], Configuration]) -> None:
        """Prints until all sources have ended, or a signal came."""
        self._print_messages(self._sender.end_interrupted())
        for result in self._cameras.results():
            if result is not None:
                self._take(result)
            if time.monotonic() >= self._next_report and self._printing.report:
                self._next_report += self._printing.report
                self._print_counts()
            if signals.reload:
                signals.reload = False
                self._reload(read)
            if signals.stop is not None:
                break
            self._sender.check()
        self._cameras.stop()
        self._give(self._messages.finish(None, "stopped"))
        self._summarize()

    def _take(self, result: CameraResult) -> None:
        if self._printing.events:
            self._give(self._messages.of(result))
        elif result.result is not None:
            self._print_window(result, result.result)
        if result.ended:
            self._end(result)

    def _end(self, result: CameraResult) -> None:
        self.failed = self.failed or result.error is not None
        state = "it ended" if result.error is None else result.error
        self._tell(f"{result.source.name}: {state}")

    def _print_window(self, result: CameraResult, window: LiveResult) -> None:
        if self._printing.as_json:
            values = {"source": result.source.name, **window.to_dict()}
            values |= {"static": result.is_static, "motion": result.motion}
            echo(json.dumps(values))
            return
        facts = (f"{window.latency:.2f} s", str(window.dropped_frames), damage_of(window))
        for line in self._rows.lines(window, (*facts, result.source.name)):
            echo(line)

    def _reload(self, read: Callable[[], Configuration]) -> None:
        """Takes a new configuration, or goes on with the old one where the new one is wrong."""
        try:
            configuration = read()
            _check_rules(self._classifier, configuration)
            gone = self._cameras.update(configuration.sources)
        except TimesformerError as error:
            self._tell(f"{error}; the old configuration stays")
            return
        self._give(self._messages.finish([source.name for source in gone], "stopped"))
        count = len(configuration.sources)
        noun = "source" if count == 1 else "sources"
        self._tell(f"the configuration was read again: {count} {noun}")
        if not self._sender.goes_on_with(configuration):
            self._tell("webhook, mqtt and spool change at the next start")

    def _give(self, messages: Sequence[Message]) -> None:
        """Puts messages into the spool, and then prints them."""
        self._sender.put(messages)
        self._print_messages(messages)

    def _print_messages(self, messages: Sequence[Message]) -> None:
        for message in messages:
            echo(json.dumps(message))

    def _print_counts(self) -> None:
        counts = self._cameras.counts()
        sources = {name: dataclasses.asdict(count) for name, count in counts.items()}
        values = {"type": "counts", "sources": sources, "fairness": fairness(counts.values())}
        echo(json.dumps(values))

    def _summarize(self) -> None:
        counts = self._cameras.counts()
        for name, count in counts.items():
            facts = dataclasses.asdict(count).items()
            self._tell(f"{name}: " + ", ".join(f"{key} {value}" for key, value in facts))
        self._tell(f"least against most windows of a source: {fairness(counts.values()):.2f}")
