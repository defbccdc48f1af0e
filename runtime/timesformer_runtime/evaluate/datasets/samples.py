"""Entries, as a dataset lists videos, and samples, whose true labels are those of a model."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Entry:
    """A video as the dataset lists it.

    Attributes:
        file: The name of the video in the dataset.
        path: The path of the file.
        labels: The true labels as the dataset writes them: names or numbers.
        where: The place in the dataset, for messages, such as ``line 3``.
        name: The name of the label where the dataset has it beside a number; else empty.
    """

    file: str
    path: str
    labels: tuple[str, ...]
    where: str
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Sample:
    """A video and its true labels.

    Attributes:
        file: The name of the video in the dataset.
        path: The path of the file, absolute.
        true: The numbers of the true labels in the model; exactly one for a softmax model.
    """

    file: str
    path: str
    true: tuple[int, ...]
