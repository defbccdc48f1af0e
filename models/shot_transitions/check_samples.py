"""Checks that an exported model names the transition in every sample clip.

python -m models.shot_transitions.check_samples MODEL
"""

from pathlib import Path

import click
import timesformer_runtime
from timesformer_runtime import VideoClassifier

SAMPLES = Path(timesformer_runtime.__file__).parent / "sample_clips"


@click.command()
@click.argument("model")
def main(model: str) -> None:
    """Exits with 1 when a sample clip is not named after the transition rendered in it."""
    classifier = VideoClassifier.from_pretrained(model, device="cpu")
    clips = sorted(SAMPLES.glob("*.mp4"))
    wrong = []
    for clip in clips:
        found = classifier(clip, top_k=1)[0]["label"]
        if found != clip.stem:
            wrong.append(f"{clip.name} is named {found}")
    if wrong or not clips:
        raise click.ClickException("; ".join(wrong) or f"there are no clips in {SAMPLES}")
    click.echo(f"All {len(clips)} sample clips are named after the transition rendered in them.")


if __name__ == "__main__":
    main()
