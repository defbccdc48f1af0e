"""Events: when a label of a source begins and ends, with hysteresis.

An event begins with the first window whose score reaches ``enter``, and goes on while scores stay
at ``leave`` or above. A pause of at most ``gap`` seconds belongs to the event. Events shorter than
``min_duration`` are never told.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

from timesformer_runtime.errors import InvalidOptionError, listed, quoted

Change: TypeAlias = Literal["start", "end"]
Reason: TypeAlias = Literal["label", "lost", "ended", "stopped", "restarted"]

_ROUNDING = 1e-6  # seconds
_MOST = 1_000_000  # of all values


@dataclasses.dataclass(frozen=True)
class EventRule:
    """When a label becomes an event.

    Attributes:
        enter: Score at which an event begins.
        leave: Score below which it ends; at most ``enter``.
        min_duration: Seconds that an event must last; shorter ones are not told.
        gap: Longest pause below ``leave``, or without the source, that does not end an event, in
            seconds. Windows that were skipped because the model was busy are not a pause.

    Raises:
        InvalidOptionError: A value is not a number, or ``leave`` is above ``enter``.
    """

    enter: float = 0.6
    leave: float = 0.4
    min_duration: float = 0.0
    gap: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if type(value) not in {int, float} or not -_MOST <= value <= _MOST:  # also NaN
                unit = " of seconds" if field.name in {"min_duration", "gap"} else ""
                raise InvalidOptionError(
                    f"`{field.name}` is {quoted(value)}; it must be a number{unit} of at most "
                    f"{_MOST}"
                )
        for name in ("min_duration", "gap"):
            if getattr(self, name) < 0:
                raise InvalidOptionError(
                    f"`{name}` is {getattr(self, name):g} seconds; it must be at least 0"
                )
        if self.leave > self.enter:
            raise InvalidOptionError(
                f"`leave` is {self.leave:g} and `enter` is {self.enter:g}; `leave` must not be "
                "above `enter`"
            )


@dataclasses.dataclass(frozen=True)
class EventRules:
    """The labels that become events, and their rules.

    Attributes:
        labels: The labels that may become events; None for all labels of the model.
        usual: The rule of labels that have no rule of their own.
        own: Rules of single labels.
    """

    labels: tuple[str, ...] | None = None
    usual: EventRule = EventRule()
    own: Mapping[str, EventRule] = dataclasses.field(default_factory=dict)

    def check(self, known: Sequence[str] | None, function: str) -> None:
        """Makes sure that the model has all named labels, and that its scores reach each ``enter``.

        Args:
            known: The labels of the model; None where it names none.
            function: How logits become scores: ``softmax``, ``sigmoid`` or ``none``.

        Raises:
            InvalidOptionError: It does not have one of them, or an ``enter`` is above all scores.
        """
        for label in (*(self.labels or ()), *self.own):
            if label not in (known or ()):
                raise InvalidOptionError(
                    f"the model has no label {quoted(label)}; it has {listed(known or ())}"
                )
        if function == "none":  # such scores have no limit
            return
        named = {f" of the label {quoted(label)}": rule for label, rule in self.own.items()}
        for of, rule in {"": self.usual, **named}.items():
            if rule.enter > 1:
                raise InvalidOptionError(
                    f"`enter`{of} is {rule.enter:g}; the model's scores are from 0 to 1: 0.7 is "
                    "70 %"
                )

    def rule(self, label: str) -> EventRule | None:
        """Gives the rule of a label; None where the label does not become events."""
        if self.labels is not None and label not in self.labels:
            return None
        return self.own.get(label, self.usual)


@dataclasses.dataclass(frozen=True)
class EventChange:
    """The start or the end of an event.

    Attributes:
        event: The event's own id, the same for its start and its end.
        change: ``start`` or ``end``.
        label: The label.
        start: Seconds from the source's first frame to the start of the event.
        end: Seconds to its end; for a start, to the end of the newest window.
        score: The highest score so far.
        reason: Why the event ended: ``label`` (its score fell), ``lost`` (the source gave no
            window for too long), ``ended`` (the source ended), ``stopped`` (the program was
            stopped, or its configuration changed) or ``restarted`` (the program had been killed).
            None for a start.
    """

    event: str
    change: Change
    label: str
    start: float
    end: float
    score: float
    reason: Reason | None = None

    @property
    def id(self) -> str:
        """An id that no other change has; receivers know by it what they have already seen."""
        return f"{self.event}:{self.change}"


@dataclasses.dataclass
class _OpenEvent:
    """An event that has begun."""

    event: str
    start: float
    end: float  # of the last window that showed the label
    score: float
    told: bool = False

    def change(self, label: str, change: Change, reason: Reason | None = None) -> EventChange:
        return EventChange(self.event, change, label, self.start, self.end, self.score, reason)


class EventTracker:
    """Makes events of the scores of one source's windows.

    Args:
        rules: The labels and their rules; may be replaced at any time between two windows.
        new_id: Gives the id of the next event.
    """

    def __init__(self, rules: EventRules, new_id: Callable[[], str] = lambda: uuid.uuid4().hex):
        self.rules = rules
        self._new_id = new_id
        self._open: dict[str, _OpenEvent] = {}
        self._newest_end = 0.0  # of all windows, in seconds

    def window(
        self,
        start: float,
        end: float,
        scores: Mapping[str, float],
        *,
        is_first_of_connection: bool = False,
    ) -> list[EventChange]:
        """Takes the next window.

        Args:
            start: Seconds from the source's first frame to the window's start.
            end: Seconds to the window's end.
            scores: The score of each label; labels that are left out have none, as in a window
                without motion.
            is_first_of_connection: True where the source was lost since the window before.

        Returns:
            What this window changes, ends before starts.
        """
        self._newest_end = end
        ends: list[EventChange] = []
        if is_first_of_connection:
            for label, event in list(self._open.items()):
                rule = self.rules.rule(label)
                if rule is not None and start - event.end > rule.gap + _ROUNDING:
                    ends += self._close(label, "lost")
        starts: list[EventChange] = []
        for label in dict.fromkeys((*self._open, *scores)):
            rule, score = self.rules.rule(label), scores.get(label)
            if rule is None:
                ends += self._close(label, "stopped")  # the label was taken out of the rules
            elif score is None or score < rule.leave:
                ends += self._pause(label, rule, end)
            else:
                starts += self._go_on(label, rule, start, end, score)
        return ends + starts

    def silence(self, seconds: float) -> list[EventChange]:
        """Takes a time without windows; ends the events for which this pause is too long.

        Args:
            seconds: Seconds without a window so far.
        """
        ends: list[EventChange] = []
        for label, event in list(self._open.items()):
            rule = self.rules.rule(label)
            if rule is None:
                ends += self._close(label, "stopped")  # the label was taken out of the rules
            elif self._newest_end + seconds - event.end > rule.gap + _ROUNDING:
                ends += self._close(label, "lost")
        return ends

    def finish(self, reason: Reason) -> list[EventChange]:
        """Ends all events, at the end of the last window that showed them."""
        labels = list(self._open)
        return [change for label in labels for change in self._close(label, reason)]

    def _pause(self, label: str, rule: EventRule, end: float) -> Iterator[EventChange]:
        """Takes a window below ``leave``; ends the event whose pause became too long."""
        event = self._open.get(label)
        if event is not None and end - event.end > rule.gap + _ROUNDING:
            yield from self._close(label, "label")

    def _go_on(
        self, label: str, rule: EventRule, start: float, end: float, score: float
    ) -> Iterator[EventChange]:
        """Takes a window that may show the label; begins an event, or goes on with it."""
        event = self._open.get(label)
        if event is None:
            if score < rule.enter:
                return
            event = self._open[label] = _OpenEvent(self._new_id(), start, end, score)
        event.end = max(event.end, end)
        event.score = max(event.score, score)
        if not event.told and event.end - event.start >= rule.min_duration - _ROUNDING:
            event.told = True
            yield event.change(label, "start")

    def _close(self, label: str, reason: Reason) -> Iterator[EventChange]:
        event = self._open.pop(label, None)
        if event is not None and event.told:
            yield event.change(label, "end", reason)
