"""Trains one of the bundled models: ``python -m models.shot_transitions.train --help``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from timesformer_exporter.model.timesformer import TimesformerForVideoClassification
from torch import Tensor
from torch.nn import functional

from models.shot_transitions.augment import augmented
from models.shot_transitions.checkpoint import save_model
from models.shot_transitions.options import threads_option
from models.shot_transitions.pool import Pool, open_pool
from models.shot_transitions.starting_point import small_config, start

STEPS = {"divided_space_time": 8000, "joint_space_time": 7000, "space_only": 7500}
"""The number of training steps of each bundled model."""

_WARM_UP = 100  # steps
_DECAY = 0.45  # share of the steps, the last ones, in which the learning rate falls to zero
_AVERAGE_DECAY = 0.998  # share of the moving average of the weights that each step keeps


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of a training."""

    attention_type: str
    steps: int
    batch_size: int = 32
    image_size: int = 64
    matrix_rate: float = 2e-3
    other_rate: float = 1e-3
    weight_decay: float = 0.02
    smoothing: float = 0.02
    seed: int = 0


class Training:
    """The state of a training: weights, their moving average, optimizers and the step."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.step = 0
        self.model = start(small_config(recipe.attention_type, recipe.image_size), recipe.seed)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimizers = _optimizers(self.model, recipe)
        self._rates = [group["lr"] for o in self.optimizers for group in o.param_groups]

    def advance(self, pixels: Tensor, labels: Tensor) -> tuple[float, float]:
        """Trains one step on a batch [B, T, 3, H, W]; returns the loss and the accuracy."""
        scale = self._schedule()
        groups = [group for o in self.optimizers for group in o.param_groups]
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate * scale
        with torch.autocast("cpu", torch.bfloat16):
            # Asking for the attentions takes the explicit formula, which trains several times
            # faster than fused attention where sequences are this short.
            output = self.model.timesformer(pixels, output_attentions=True)
            logits = self.model.classifier(output.last_hidden_state[:, 0])
        loss = functional.cross_entropy(
            logits.float(), labels, label_smoothing=self.recipe.smoothing
        )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._update_average()
        self.step += 1
        return loss.item(), float((logits.argmax(1) == labels).float().mean())

    def averaged_model(self) -> TimesformerForVideoClassification:
        """The model with the averaged weights, in evaluation mode."""
        model = TimesformerForVideoClassification(self.model.config)
        model.load_state_dict(self.average)
        return model.eval()

    def save(self, path: Path) -> None:
        """Writes the state for ``load``; an interrupted write keeps the old file."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        beside = path.with_suffix(".partial")
        torch.save(state, beside)
        beside.replace(path)

    def load(self, path: Path) -> None:
        """Reads a saved state."""
        state: dict[str, Any] = torch.load(path, weights_only=True)
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)

    def _schedule(self) -> float:
        """The factor of the learning rate: warm-up, then constant, then linear to zero."""
        left = (self.recipe.steps - self.step) / (self.recipe.steps * _DECAY)
        return min(1.0, (self.step + 1) / _WARM_UP, left)

    @torch.no_grad()
    def _update_average(self) -> None:
        keep = min(_AVERAGE_DECAY, (self.step + 1) / (self.step + 10))
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value, 1 - keep)


def _optimizers(
    model: TimesformerForVideoClassification, recipe: Recipe
) -> list[torch.optim.Optimizer]:
    """Muon for the encoder's matrices, AdamW for everything else."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in model.named_parameters():
        is_matrix = ".encoder." in name and parameter.ndim == 2
        (matrices if is_matrix else others).append(parameter)
    return [
        torch.optim.Muon(
            matrices,
            lr=recipe.matrix_rate,
            weight_decay=recipe.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            others, lr=recipe.other_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
        ),
    ]


def batches(pool: Pool, recipe: Recipe, first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields augmented batches from step ``first`` on; equal seed and pool give equal batches."""
    available = pool.available()
    for step in range(first, recipe.steps):
        rng = np.random.default_rng([recipe.seed, step])
        chosen = rng.choice(available, recipe.batch_size)
        pairs = [
            augmented(rng, pool.clips[i], int(pool.labels[i]), recipe.image_size) for i in chosen
        ]
        yield (
            torch.from_numpy(np.stack([pixels for pixels, _ in pairs])),
            torch.tensor([label for _, label in pairs]),
        )


@click.command()
@click.option(
    "--attention-type",
    type=click.Choice(list(STEPS)),
    default="divided_space_time",
    show_default=True,
)
@click.option(
    "--pool",
    "pool_folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder that the render command wrote.",
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Model folder.")
@click.option(
    "--state", type=click.Path(path_type=Path), required=True, help="File to carry on from."
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Batches of 32 clips.  [default: "
    + ", ".join(f"{steps} for {name}" for name, steps in STEPS.items())
    + "]",
)
@click.option("--seed", default=0, show_default=True, help="Same seed and pool, same training.")
@threads_option
def main(
    attention_type: str,
    pool_folder: Path,
    output: Path,
    state: Path,
    steps: int | None,
    seed: int,
    threads: int,
) -> None:
    """Trains a model on rendered clips; run again after an interruption, it carries on."""
    torch.set_num_threads(threads)
    steps = steps or STEPS[attention_type]
    training = Training(Recipe(attention_type=attention_type, steps=steps, seed=seed))
    if state.exists():
        training.load(state)
        click.echo(f"carrying on from step {training.step}")
    began, figures = time.monotonic(), []
    for pixels, labels in batches(open_pool(pool_folder), training.recipe, training.step):
        figures.append(training.advance(pixels, labels))
        if training.step % 50 == 0:
            loss, accuracy = np.mean(figures, axis=0)
            pace = (time.monotonic() - began) / len(figures)
            click.echo(
                f"step {training.step} of {steps}: loss {loss:.4f}, accuracy {accuracy:.2%}, "
                f"{pace:.2f} s a step"
            )
            began, figures = time.monotonic(), []
        if training.step % 500 == 0 or training.step == steps:
            training.save(state)
            save_model(training.averaged_model(), output)


if __name__ == "__main__":
    main()
