"""Measures a model and writes its card: ``python -m models.shot_transitions.evaluate --help``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch
from timesformer_exporter.model.timesformer import TimesformerForVideoClassification

from models.shot_transitions.augment import normalised
from models.shot_transitions.card import EVALUATION, put_into_card
from models.shot_transitions.checkpoint import load_model
from models.shot_transitions.labels import LABELS
from models.shot_transitions.options import (
    FOLDER,
    model_option,
    renders_option,
    threads_option,
    write_card_option,
)
from models.shot_transitions.pool import Pool, open_pool

_BATCH = 50


@dataclass(frozen=True)
class Evaluation:
    """The confusion matrix: numbers of clips, int [true class, predicted class]."""

    confusion: npt.NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """The share of clips that get their true class."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    def share(self, true: str, predicted: str) -> float:
        """The share of the clips of class ``true`` that get the class ``predicted``, 0 to 1."""
        row = self.confusion[LABELS.index(true)]
        return float(row[LABELS.index(predicted)] / row.sum())

    def table(self) -> str:
        """The confusion as a Markdown table: clips, one row for each true class."""
        names = [label.replace("_", " ") for label in LABELS]
        lines = [
            "| true \\ predicted | " + " | ".join(names) + " | right |",
            "|---" + "|--:" * (len(LABELS) + 1) + "|",
        ]
        for index, name in enumerate(names):
            row = self.confusion[index]
            right = row[index] / max(row.sum(), 1)
            cells = [f"**{n}**" if i == index else str(n or "") for i, n in enumerate(row)]
            lines.append(f"| {name} | " + " | ".join(cells) + f" | {right:.1%} |")
        return "\n".join(lines)


@torch.no_grad()
def logits_of(
    model: TimesformerForVideoClassification, clips: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """The logits [N, 9] of clips uint8 [N, 8, size, size, 3], in float32."""
    parts = [
        model(torch.from_numpy(normalised(clips[i : i + _BATCH]))).numpy()
        for i in range(0, len(clips), _BATCH)
    ]
    return np.concatenate(parts)


def pool_for(model: TimesformerForVideoClassification, folder: Path) -> Pool:
    """Opens a pool whose clips have the model's size.

    Raises:
        click.ClickException: The folder is not a pool, or its clips have another size.
    """
    try:
        pool = open_pool(folder)
    except FileNotFoundError as error:
        raise click.ClickException(
            f"{folder} is not a pool of clips; make one: python -m models.shot_transitions.render"
        ) from error
    size = model.config.image_hw[0]
    if pool.clips.shape[2:4] != model.config.image_hw:
        raise click.ClickException(
            f"{folder} has clips of {pool.clips.shape[2]} pixels and the model takes {size}; "
            f"render with --size {size}"
        )
    return pool


def evaluate(model: TimesformerForVideoClassification, pool: Pool) -> Evaluation:
    """Classifies every clip of a pool."""
    available = pool.available()
    predicted = logits_of(model, pool.clips[available]).argmax(1)
    confusion = np.zeros((len(LABELS), len(LABELS)), dtype=np.int64)
    np.add.at(confusion, (pool.labels[available], predicted), 1)
    return Evaluation(confusion)


def report(title: str, pool_folder: Path, result: Evaluation) -> str:
    """Makes the Markdown of an evaluation: accuracy, the clips, the confusion matrix."""
    about = json.loads((pool_folder / "about.json").read_text(encoding="utf-8"))
    source = "drawn scenes"
    if about["videos"]:
        names = ", ".join(f"`{name}`" for name in about["videos"])
        source = f"pairs of shots from {len(about['videos'])} videos ({names})"
    return "\n\n".join(
        [
            f"### {title}: {result.accuracy:.1%}",
            f"{result.confusion.sum()} clips of {source}, seed {about['seed']}.",
            result.table(),
        ]
    )


@click.command()
@model_option
@renders_option(required=False)
@click.option(
    "--footage",
    type=FOLDER,
    help="Pool that was rendered with --videos.",
)
@write_card_option
@threads_option
def main(
    folder: Path, renders: Path | None, footage: Path | None, write_card: bool, threads: int
) -> None:
    """Prints accuracy and confusion on pools of clips that training never saw."""
    torch.set_num_threads(threads)
    model = load_model(folder)
    parts = []
    for title, pool_folder in (("Held-out renders", renders), ("Real footage", footage)):
        if pool_folder is None:
            continue
        result = evaluate(model, pool_for(model, pool_folder))
        parts.append(report(title, pool_folder, result))
    text = "\n\n".join(parts)
    click.echo(text)
    if write_card:
        put_into_card(folder, text, EVALUATION)


if __name__ == "__main__":
    main()
