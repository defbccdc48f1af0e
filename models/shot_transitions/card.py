"""Puts measured tables into a model card, between two markers."""

from __future__ import annotations

BEGIN, END = "<!-- evaluation: begin -->", "<!-- evaluation: end -->"


def between_markers(card: str, text: str) -> str:
    """The card with ``text`` between its markers.

    Raises:
        ValueError: The card does not have each marker once.
    """
    if card.count(BEGIN) != 1 or card.count(END) != 1:
        raise ValueError(f"the card must have the lines {BEGIN!r} and {END!r}, each once")
    before, rest = card.split(BEGIN)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}"


def evaluation_in(card: str) -> str:
    """What stands between the markers of a card."""
    return card.split(BEGIN)[1].split(END, maxsplit=1)[0].strip()
