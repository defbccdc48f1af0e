"""Text of others on the user's terminal: names of files and labels may hold escape sequences."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with every character that does not print, such as ESC, written as its escape."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
