"""Puts measured tables into a model card, each between two markers of its own."""

from __future__ import annotations

EVALUATION, VARIANTS, EXPLANATION = "evaluation", "variants", "explanation"


def between_markers(card: str, text: str, name: str) -> str:
    """Returns the card with ``text`` in place of the lines between the markers of that name.

    Raises:
        ValueError: The card does not have each marker once.
    """
    begin, end = _markers(name)
    if card.count(begin) != 1 or card.count(end) != 1:
        raise ValueError(f"the card must have the lines {begin!r} and {end!r}, each once")
    before, rest = card.split(begin)
    return f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}"


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
