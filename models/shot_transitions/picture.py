"""Draws the README's image: the frames that the model sees of sample clips, and its labels.

python -m models.shot_transitions.picture MODEL
"""

from __future__ import annotations

from pathlib import Path

import av
import click
from PIL import Image, ImageDraw, ImageFont
from timesformer_runtime import VideoClassifier

from models.shot_transitions.check_samples import SAMPLES

_SHOWN = ("cut", "dissolve", "fade_out", "wipe_left")
_FRAME = (112, 63)  # width and height of a frame in the picture, in pixels
_GAP, _TEXT_WIDTH, _FONT_SIZE = 4, 176, 18
_BACKGROUND, _TEXT = "white", "#24292f"


@click.command()
@click.argument("model")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("docs/pictures/sample-clips.jpg"),
    show_default=True,
)
def main(model: str, output: Path) -> None:
    """Writes the picture, made with an exported MODEL."""
    classifier = VideoClassifier.from_pretrained(model, device="cpu")
    rows = [_row(classifier, SAMPLES / f"{name}.mp4") for name in _SHOWN]
    height = _FRAME[1] + _GAP
    picture = Image.new("RGB", (rows[0].width, height * len(rows) + _GAP), _BACKGROUND)
    for number, row in enumerate(rows):
        picture.paste(row, (0, _GAP + number * height))
    output.parent.mkdir(parents=True, exist_ok=True)
    picture.save(output, quality=88, subsampling=0)
    click.echo(f"{output}: {output.stat().st_size:,} bytes")


def _row(classifier: VideoClassifier, video: Path) -> Image.Image:
    """The frames that the model sees of a video, side by side, then its first label."""
    result = classifier.classify(video, top_k=1)
    (best,) = result.predictions
    frames_width = len(result.indices) * (_FRAME[0] + _GAP)
    row = Image.new("RGB", (_GAP + frames_width + _TEXT_WIDTH, _FRAME[1]), _BACKGROUND)
    with av.open(video) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for number, index in enumerate(result.indices):
        small = Image.fromarray(frames[index]).resize(_FRAME, Image.Resampling.LANCZOS)
        row.paste(small, (_GAP + number * (_FRAME[0] + _GAP), 0))
    ImageDraw.Draw(row).text(
        (_GAP + frames_width + 8, _FRAME[1] // 2),
        f"{best['label']}  {best['score']:.2f}",
        fill=_TEXT,
        font=ImageFont.load_default(_FONT_SIZE),
        anchor="lm",
    )
    return row


if __name__ == "__main__":
    main()
