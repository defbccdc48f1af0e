"""The nine classes, and what each symmetry of a clip does to them."""

from __future__ import annotations

LABELS = (
    "none",
    "cut",
    "fade_in",
    "fade_out",
    "dissolve",
    "wipe_left",
    "wipe_right",
    "wipe_up",
    "wipe_down",
)
"""Class names in the order of the logits.

none: one shot, whatever happens in it. cut: the change fits between two sampled frames.
fade_in, fade_out: from, to one flat colour. dissolve: one scene melts into the other.
wipe_left: the edge travels to the left, so the new scene appears at the right. The other wipes are
named after the direction of their edge, too.
"""

WIPES = LABELS[5:]


def _swapped(*pairs: tuple[str, str]) -> tuple[int, ...]:
    names = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    return tuple(LABELS.index(names.get(label, label)) for label in LABELS)


# The index of the label that each label becomes when the clip is mirrored, flipped, ...
MIRRORED = _swapped(("wipe_left", "wipe_right"))  # left and right exchanged
FLIPPED = _swapped(("wipe_up", "wipe_down"))  # top and bottom exchanged
TRANSPOSED = _swapped(("wipe_left", "wipe_up"), ("wipe_right", "wipe_down"))  # rows and columns
# Played backwards, an edge travels back: the old scene appears where the new one was last.
REVERSED = _swapped(("fade_in", "fade_out"), ("wipe_left", "wipe_right"), ("wipe_up", "wipe_down"))
