"""Measures whether attention rollout says something: run with ``--help`` for the options."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch
from timesformer_exporter.graph.trace import GraphOutputs, TracedModel
from timesformer_exporter.model.attention_rollout import Rollout
from timesformer_exporter.model.timesformer import TimesformerForVideoClassification, initialize
from timesformer_runtime.model.agreement import Agreement

from models.shot_transitions.augment import normalised
from models.shot_transitions.card import EXPLANATION, put_into_card
from models.shot_transitions.checkpoint import load_model
from models.shot_transitions.clips import random_plan
from models.shot_transitions.evaluate import pool_for
from models.shot_transitions.labels import LABELS
from models.shot_transitions.options import (
    model_option,
    renders_option,
    threads_option,
    write_card_option,
)
from models.shot_transitions.transitions import PURE, random_transition

_BATCH = 50
_GREYED = 0.2  # share of the patches of a clip
_GREY = 0  # after normalisation, the mean of the pixels in training
JUDGED = ("cut", "fade_in", "fade_out", "dissolve")
_RESAMPLES = 2000  # of the bootstrap
# Times the share of the others; a smaller difference cannot be seen in a picture.
_LEAST_MORE = 1.02
_MOST_CORRELATION = 0.9  # with the rollout of random weights
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean over clips with its 95 % interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Floats) -> Interval:
        """Resamples the clips (percentile bootstrap)."""
        rng = np.random.default_rng(0)
        means = rng.choice(values, (_RESAMPLES, len(values))).mean(axis=1)
        low, high = np.percentile(means, [2.5, 97.5]).tolist()
        return cls(float(values.mean()), low, high)

    def written(self, digits: int, *, signed: bool = False) -> str:
        """The mean and the interval."""
        sign = "+" if signed else ""
        mean, low, high = (f"{v:{sign}.{digits}f}" for v in (self.mean, self.low, self.high))
        return f"{mean} ({low} to {high})"


@dataclass(frozen=True)
class Findings:
    """The findings over the clips of a pool.

    Attributes:
        clips: Number of clips.
        seed: The seed that they were drawn with.
        correlation: Of the trained model's rollout with that of the model with random weights.
        lost_named: How much the label's score falls where the most named fifth is grey.
        lost_random: How much it falls where a random fifth is grey.
        more_than_random: The difference of the two, clip by clip.
        at_transition: For each class the mean share of the frames at the transition, as a multiple
            of the mean of the other frames.
        beyond_position: The same, after each frame's share was divided by the mean share of its
            position over all clips.
    """

    clips: int
    seed: int
    correlation: float
    lost_named: Interval
    lost_random: Interval
    more_than_random: Interval
    at_transition: dict[str, Interval]
    beyond_position: dict[str, Interval]

    def report(self) -> str:
        """The findings as Markdown, with the clips that they are of."""
        return "\n\n".join(
            [
                f"### What the heat says, on {self.clips} held-out renders",
                f"Drawn scenes, seed {self.seed}.",
                self.table(),
            ]
        )

    def table(self) -> str:
        """The findings as a table, with what holds and what does not."""
        lines = [
            "| wanted | measured, mean (95 % interval) | |",
            "|---|---|---|",
            "| random weights give another rollout: correlation below "
            f"{_MOST_CORRELATION:g} | {self.correlation:.2f} | "
            f"{_verdict(self.correlation < _MOST_CORRELATION)} |",
            "| greying the fifth of the patches with the most costs the label more score than a "
            f"random fifth | {self.lost_named.written(3)} beside {self.lost_random.written(3)}; "
            f"difference {self.more_than_random.written(3, signed=True)} | "
            f"{_verdict(self.more_than_random.low > 0)} |",
        ]
        for label in self.at_transition:
            for name, found in (
                ("more than the others", self.at_transition[label]),
                ("more than other clips have at the same frames", self.beyond_position[label]),
            ):
                lines.append(
                    f"| {label.replace('_', ' ')}: the frames at the transition have {name} (above "
                    f"{_LEAST_MORE:g}) | {found.written(2)} | {_verdict(found.low > _LEAST_MORE)} |"
                )
        return "\n".join(lines)


def _verdict(holds: bool) -> str:
    return "holds" if holds else "**does not hold**"


@torch.no_grad()
def rollouts_of(
    model: TimesformerForVideoClassification, clips: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The scores [N, 9] of clips uint8 [N, 8, size, size, 3], and the shares [N, 8, rows, cols]."""
    parts = list(_answers(model, torch.from_numpy(normalised(clips))))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


@torch.no_grad()
def _answers(
    model: TimesformerForVideoClassification, pixels: torch.Tensor
) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    form = TracedModel(model, GraphOutputs(rollout=Rollout()))
    for part in torch.split(pixels, _BATCH):
        logits, shares = form(part)
        yield logits.softmax(dim=1).numpy(), shares.numpy()


def greyed(
    pixels: npt.NDArray[np.float32], chosen: npt.NDArray[np.bool_], patch: int
) -> npt.NDArray[np.float32]:
    """Greys patches of clips [N, 8, 3, size, size], which [N, 8, rows, columns] chooses."""
    mask = chosen.repeat(patch, axis=2).repeat(patch, axis=3)
    return np.where(mask[:, :, None], np.float32(_GREY), pixels)


def most_named(shares: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """The fifth of each clip's patches that has the largest shares."""
    flat = shares.reshape(len(shares), -1)
    count = round(_GREYED * flat.shape[1])
    chosen = np.zeros(flat.shape, dtype=bool)
    np.put_along_axis(chosen, np.argsort(-flat, axis=1)[:, :count], True, axis=1)
    return chosen.reshape(shares.shape)


def frames_at_transition(seed: int, index: int, label: str) -> npt.NDArray[np.bool_]:
    """The frames of a balanced pool's clip that show its transition: those in between.

    Where no frame is in between, as at a cut: the last frame before it and the first one after it.
    """
    rng = np.random.default_rng([seed, index])  # as render.py draws the clip
    plan = random_plan(rng, label)
    transition = random_transition(rng, plan.label, plan.sampled, plan.height, plan.width)
    progress = np.array([transition.progress(int(frame)) for frame in plan.sampled])
    between = (progress > PURE) & (progress < 1 - PURE)
    if not between.any():
        first_after = int(np.argmax(progress >= 1 - PURE))
        between[max(first_after - 1, 0) : first_after + 1] = True
    return np.asarray(between)


def measure(folder: Path, renders: Path) -> Findings:
    """Measures a model over a balanced pool of held-out renders."""
    model = load_model(folder)
    pool = pool_for(model, renders)
    about = json.loads((renders / "about.json").read_text(encoding="utf-8"))
    if not about["balanced"] or about["videos"]:
        raise click.ClickException(f"{renders} must be a pool of drawn scenes, with --balanced")
    available = pool.available()
    clips = pool.clips[available]
    scores, shares = rollouts_of(model, clips)
    answer, rows = scores.argmax(1), np.arange(len(clips))
    patch, pixels = model.config.patch_hw[0], normalised(clips)
    rng = np.random.default_rng(1)
    losses = []
    for measure_of_patches in (shares, rng.random(shares.shape, dtype=np.float32)):
        grey = greyed(pixels, most_named(measure_of_patches), patch)
        after = np.concatenate([part[0] for part in _answers(model, torch.from_numpy(grey))])
        losses.append((scores - after)[rows, answer].astype(np.float64))
    torch.manual_seed(0)
    initialize(model, 0.02)
    _, random_shares = rollouts_of(model, clips)
    at, beyond = _at_transitions(shares.mean((2, 3)), available, about["seed"])
    return Findings(
        clips=len(clips),
        seed=about["seed"],
        correlation=Agreement(shares, random_shares).correlation,
        lost_named=Interval.of(losses[0]),
        lost_random=Interval.of(losses[1]),
        more_than_random=Interval.of(losses[0] - losses[1]),
        at_transition=at,
        beyond_position=beyond,
    )


def _at_transitions(
    of_frames: npt.NDArray[np.float32], indices: npt.NDArray[np.int64], seed: int
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    labels = [LABELS[index % len(LABELS)] for index in indices.tolist()]
    usual = of_frames.mean(axis=0)
    at, beyond = {}, {}
    for label in JUDGED:
        ratios = []
        for row, index in enumerate(indices.tolist()):
            if labels[row] != label:
                continue
            chosen = frames_at_transition(seed, index, label)
            if not chosen.all():
                ratios.append(
                    [_ratio(of_frames[row], chosen), _ratio(of_frames[row] / usual, chosen)]
                )
        columns = np.array(ratios, dtype=np.float64).T
        at[label], beyond[label] = Interval.of(columns[0]), Interval.of(columns[1])
    return at, beyond


def _ratio(shares: npt.NDArray[np.float32], chosen: npt.NDArray[np.bool_]) -> float:
    return float(shares[chosen].mean() / shares[~chosen].mean())


@click.command()
@model_option
@renders_option(pool="Balanced pool")
@write_card_option
@threads_option
def main(folder: Path, renders: Path, write_card: bool, threads: int) -> None:
    """Prints whether the heat of ``timesformer explain`` says something about the answer.

    It should change with the weights; greying what it names most should cost the answer more than
    greying anything else; and the frames at a transition should have more than the others.
    """
    torch.set_num_threads(threads)
    findings = measure(folder, renders)
    text = findings.report()
    click.echo(text)
    if write_card:
        put_into_card(folder, text, EXPLANATION)


if __name__ == "__main__":
    main()
