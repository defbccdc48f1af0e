"""Reads the settings that the authors' trainer writes into its checkpoints as text, key ``cfg``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_LINE = re.compile(r"^(\s*)(- )?(?:(\w+):)?\s*(.*)$")


@dataclass(frozen=True)
class FacebookSettings:
    """The settings that describe what a model's tensors do not; None where a setting is absent.

    Attributes:
        num_frames: DATA.NUM_FRAMES.
        attention_type: TIMESFORMER.ATTENTION_TYPE.
        mean: DATA.MEAN, one number for each channel.
        std: DATA.STD, one number for each channel.
        dataset: TRAIN.DATASET, in lower case.
    """

    num_frames: int | None = None
    attention_type: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    dataset: str | None = None


def parse_settings(text: str) -> FacebookSettings:
    """Reads the settings leniently: a setting that is absent or not as expected stays None."""
    values = _flat(text)
    frames = _single(values.get("DATA.NUM_FRAMES")) or ""
    return FacebookSettings(
        num_frames=int(frames) if re.fullmatch(r"[0-9]{1,9}", frames) else None,
        attention_type=_single(values.get("TIMESFORMER.ATTENTION_TYPE")),
        mean=_numbers(values.get("DATA.MEAN")),
        std=_numbers(values.get("DATA.STD")),
        dataset=(_single(values.get("TRAIN.DATASET")) or "").lower() or None,
    )


def _flat(text: str) -> dict[str, list[str]]:
    """Parses the YAML that a yacs CfgNode dumps: sections of plain values and of lists of them.

    Keys are ``SECTION.NAME``; deeper sections, which are not needed here, are left out.
    """
    values: dict[str, list[str]] = {}
    section = name = ""
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        indent, item, key, value = match.groups()
        if key and not indent:
            section, name = key, ""
        elif key and len(indent) == 2 and not item:
            name = f"{section}.{key}"
            values[name] = _items(value)
        elif item and name:
            values[name].append(value.strip("'\""))
        elif key:
            name = ""
    return values


def _items(value: str) -> list[str]:
    """A plain value, or a list in brackets."""
    value = value.strip()
    items = value[1:-1].split(",") if value.startswith("[") else [value]
    return [item.strip().strip("'\"") for item in items if item.strip()]


def _single(values: list[str] | None) -> str | None:
    return values[0] if values is not None and len(values) == 1 else None


def _numbers(values: list[str] | None) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(value) for value in values or [])
    except ValueError:
        return None
    return numbers if numbers and all(math.isfinite(number) for number in numbers) else None
