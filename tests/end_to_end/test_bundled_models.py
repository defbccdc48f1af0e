"""The bundled models: their files, their sample clips, and the numbers in their cards."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
import timesformer_runtime
import torch
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.input.sampling import uniform

from models.shot_transitions.accuracy import Cost
from models.shot_transitions.card import EVALUATION, EXPLANATION, VARIANTS
from models.shot_transitions.checkpoint import load_model
from models.shot_transitions.clips import decode, render_clip
from models.shot_transitions.evaluate import logits_of
from models.shot_transitions.explain import JUDGED, Findings, Interval
from models.shot_transitions.labels import LABELS, REVERSED
from models.shot_transitions.sample_clips import sample_clip
from tests.video_files import read_clip

MODELS = Path(__file__).parents[2] / "models"
KINDS = {
    "divided": "divided_space_time",
    "joint": "joint_space_time",
    "space": "space_only",
}
SAMPLES = sorted((Path(timesformer_runtime.__file__).parent / "sample_clips").glob("*.mp4"))


def folder_of(kind: str) -> Path:
    return MODELS / f"shot-transitions-{kind}"


@pytest.fixture(scope="module")
def held_out() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The first clips of the pool that the cards' numbers come from."""
    labels = np.arange(72) % len(LABELS)
    clips = [
        render_clip(np.random.default_rng([1, index]), LABELS[label], 64)
        for index, label in enumerate(labels)
    ]
    return np.stack(clips), labels


def card_row(card: str, section: str, label: str) -> list[int]:
    """The labels that the clips of one class got, from a card's table."""
    table = card.split(f"### {section}")[1].split("###", maxsplit=1)[0]
    row = re.search(rf"^\| {label.replace('_', ' ')} \|(.*)\|", table, re.MULTILINE)
    assert row is not None
    return [int(cell.strip(" *") or 0) for cell in row[1].split("|")[: len(LABELS)]]


def card_accuracy(card: str, section: str) -> float:
    percent = re.search(rf"^### {section}: ([\d.]+)%", card, re.MULTILINE)
    assert percent is not None
    return float(percent[1]) / 100


@pytest.mark.parametrize("kind", KINDS)
def test_model_folder_is_complete_and_small(kind: str) -> None:
    folder = folder_of(kind)
    config = json.loads((folder / "config.json").read_text())
    assert config["attention_type"] == KINDS[kind]
    assert [config["id2label"][str(i)] for i in range(9)] == list(LABELS)
    assert config["num_frames"] == 8
    assert (folder / "model.safetensors").stat().st_size <= 8_000_000
    values = json.loads((folder / "preprocessor_config.json").read_text())
    assert Preprocessing.from_dict(values).output_size == (64, 64)
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "pipeline_tag: video-classification" in card


@pytest.mark.parametrize("kind", KINDS)
def test_card_says_how_good_the_model_is(
    kind: str, held_out: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
) -> None:
    torch.set_num_threads(1)
    clips, labels = held_out
    card = (folder_of(kind) / "README.md").read_text()
    counts = np.array([card_row(card, "Held-out renders", label) for label in LABELS])
    said = card_accuracy(card, "Held-out renders")
    assert counts.sum() >= 2000
    assert np.trace(counts) / counts.sum() == pytest.approx(said, abs=6e-4)
    measured = (logits_of(load_model(folder_of(kind)), clips).argmax(1) == labels).mean()
    assert measured == pytest.approx(said, abs=0.08 if kind != "space" else 0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_card_says_what_reduced_precision_costs(kind: str) -> None:
    card = (folder_of(kind) / "README.md").read_text()
    table = card.split("### What reduced precision costs, on the 2700 held-out renders")[1]
    rows = re.findall(r"^\| (\w+) \| ([\d.]+)% \| (-?[\d.]+) \| ([\d.]+)% \|", table, re.MULTILINE)
    assert [row[0] for row in rows] == ["fp32", "int8", "int8_avx2", "fp16", "q4"]
    for variant, accuracy, lost, agreement in rows:
        said = 100 * card_accuracy(card, "Held-out renders")
        assert float(accuracy) + float(lost) == pytest.approx(said, abs=0.07), variant
        assert Cost(variant, float(accuracy), float(lost), float(agreement) / 100).passed, variant


@pytest.mark.parametrize("kind", KINDS)
def test_card_has_what_the_commands_write_and_nothing_else(kind: str) -> None:
    """Between the markers of each table: headings, the sentence about the clips, and tables."""
    card = (folder_of(kind) / "README.md").read_text()
    blocks = re.findall(r"<!-- (\w+): begin -->\n(.*?)<!-- \1: end -->", card, re.DOTALL)
    assert [name for name, _ in blocks] == [EVALUATION, VARIANTS, EXPLANATION]
    for name, block in blocks:
        for line in filter(None, block.splitlines()):
            written = r"### |\|.*\|$|(\d+ clips of .*|Drawn scenes), seed 1\.$"
            assert re.match(written, line), (name, line)


@pytest.mark.parametrize("kind", KINDS)
def test_card_says_what_the_heat_says(kind: str) -> None:
    card = (folder_of(kind) / "README.md").read_text()
    found = Interval(1.0, 1.0, 1.0)
    labels = dict.fromkeys(JUDGED, found)
    expected = Findings(1800, 1, 0.0, found, found, found, labels, labels).report().splitlines()
    start = card.split("<!-- explanation: begin -->\n\n")[1].splitlines()
    for line, written in zip(expected, start, strict=False):
        assert written.split(" | ")[0] == line.split(" | ")[0]
        if share := re.search(r"\(above 1\.02\) \| [\d.]+ \(([\d.]+) to", written):
            assert written.endswith("| holds |") == (float(share[1]) > 1.02)
    assert f"explain --model models/shot-transitions-{kind} \\\n    --renders build/heat" in card


def test_divided_model_is_as_good_as_wanted() -> None:
    card = (folder_of("divided") / "README.md").read_text()
    assert card_accuracy(card, "Held-out renders") >= 0.97
    assert card_accuracy(card, "Real footage") >= 0.90


@pytest.mark.parametrize("section", ["Held-out renders", "Real footage"])
def test_space_only_guesses_where_the_order_of_frames_decides(section: str) -> None:
    card = (folder_of("space") / "README.md").read_text()
    assert "cannot tell" in card
    for label in ("fade_in", "wipe_left", "wipe_up"):
        index = LABELS.index(label)
        there, back = index, REVERSED[index]
        pair = np.array([card_row(card, section, LABELS[i]) for i in (there, back)])
        right = pair[0, there] + pair[1, back]
        named = pair[:, [there, back]].sum()
        assert right / named == pytest.approx(0.5, abs=0.12)
    divided = (folder_of("divided") / "README.md").read_text()
    row = card_row(divided, section, "fade_in")
    assert row[LABELS.index("fade_in")] > 0.9 * sum(row)


def test_space_only_gives_a_clip_played_backwards_the_same_logits(
    held_out: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]],
) -> None:
    clips = held_out[0][:9]
    space, divided = (load_model(folder_of(kind)) for kind in ("space", "divided"))
    forth, back = logits_of(space, clips), logits_of(space, clips[:, ::-1])
    np.testing.assert_allclose(forth, back, rtol=1e-3, atol=1e-4)
    assert np.abs(logits_of(divided, clips) - logits_of(divided, clips[:, ::-1])).max() > 1


def test_sample_clips_are_small_videos_one_for_each_class() -> None:
    assert [path.stem for path in SAMPLES] == sorted(LABELS)
    assert sum(path.stat().st_size for path in SAMPLES) <= 1_000_000
    for path in SAMPLES:
        with av.open(path) as container:
            video = container.streams.video[0]
            assert (video.width, video.height) == (320, 180)
            assert video.codec_context.name == "h264"
            assert video.frames == 48


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_divided_model_names_the_sample_clips(path: Path) -> None:
    folder = folder_of("divided")
    values = json.loads((folder / "preprocessor_config.json").read_text())
    clip = read_clip(path, functools.partial(uniform, num_frames=8))
    pixels = torch.from_numpy(Preprocessing.from_dict(values)(clip.frames))[None]
    with torch.no_grad():
        scores = load_model(folder)(pixels).softmax(-1)[0]
    assert LABELS[int(scores.argmax())] == path.stem
    assert scores.max() > 0.5


def test_sample_clips_are_what_the_command_renders() -> None:
    path = next(path for path in SAMPLES if path.stem == "fade_out")
    drawn = sample_clip("fade_out", 5)
    everything = np.arange(48)
    kept, again = decode(path.read_bytes(), everything), decode(drawn, everything)
    differences = [np.abs(a.astype(int) - b).mean() for a, b in zip(kept, again, strict=True)]
    assert max(differences) < 3  # another build of x264 may round otherwise


@pytest.mark.parametrize("kind", KINDS)
def test_overview_repeats_the_cards(kind: str) -> None:
    overview = (MODELS / "README.md").read_text()
    row = next(line for line in overview.splitlines() if f"[shot-transitions-{kind}]" in line)
    card = (folder_of(kind) / "README.md").read_text()
    fades = ("fade_in", "fade_out")
    rows = np.array([card_row(card, "Held-out renders", label) for label in fades])
    told_apart = rows[0, LABELS.index("fade_in")] + rows[1, LABELS.index("fade_out")]
    assert [cell.strip() for cell in row.split("|")[3:6]] == [
        f"{card_accuracy(card, 'Held-out renders'):.1%}",
        f"{card_accuracy(card, 'Real footage'):.1%}",
        f"{told_apart / rows.sum():.1%}",
    ]
