"""The programs that make the bundled models: renders, labels, training, evaluation."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner

from models.shot_transitions import accuracy, augment, evaluate, render, train
from models.shot_transitions.accuracy import Cost, cost
from models.shot_transitions.card import EVALUATION, VARIANTS, between_markers
from models.shot_transitions.checkpoint import load_model, save_model
from models.shot_transitions.clips import Plan, encode, joined_frames, render_clip
from models.shot_transitions.evaluate import Evaluation, logits_of
from models.shot_transitions.footage import load_footage
from models.shot_transitions.labels import FLIPPED, LABELS, MIRRORED, REVERSED, TRANSPOSED
from models.shot_transitions.pool import create_pool, open_pool
from models.shot_transitions.scenes import KINDS, Scene
from models.shot_transitions.starting_point import frequency_basis, small_config, start
from models.shot_transitions.transitions import Transition, random_transition, visible_label

SAMPLED = np.linspace(0, 29, 8).astype(np.int64)  # 0 4 8 12 16 20 24 29


class Flat:
    """A scene of one grey level."""

    source = ""

    def __init__(self, level: int) -> None:
        self.level = level

    def frame(self, time: float = 0.0) -> npt.NDArray[np.uint8]:
        return np.full((32, 32, 3), self.level, np.uint8)


def joined(transition: Transition) -> npt.NDArray[np.uint8]:
    """The sampled frames of a grey (80) and a white (240) scene, joined."""
    old, new = Flat(80), Flat(240)
    return np.stack([transition.join(int(i), old.frame, new.frame) for i in SAMPLED])


def named_by_levels(clip: npt.NDArray[np.uint8]) -> str:
    """Names a clip of ``joined`` by what its grey levels do, with none of the code under test."""
    levels = clip[..., 0].astype(float)
    if levels[0].mean() == 0 or levels[-1].mean() == 0:
        return "fade_in" if levels[0].mean() == 0 else "fade_out"
    between = [
        f
        for f in levels
        if abs(f.mean() - levels[0].mean()) > 5 and abs(f.mean() - levels[-1].mean()) > 5
    ]
    if not between:
        return "cut" if levels[0].mean() != levels[-1].mean() else "none"
    halfway = between[len(between) // 2]
    ends = levels[0].mean(), levels[-1].mean()
    across, down = halfway.mean(axis=0), halfway.mean(axis=1)
    if np.ptp(across) < 1 and np.ptp(down) < 1:
        return "dissolve"
    # The side on which the last scene's level stands already is the side that it came from.
    line, names = (
        (across, ("wipe_right", "wipe_left"))
        if np.ptp(across) > 1
        else (down, ("wipe_down", "wipe_up"))
    )
    new_first = abs(line[0] - ends[1]) < abs(line[0] - ends[0])
    return names[0] if new_first else names[1]


def example(label: str) -> npt.NDArray[np.uint8]:
    return joined(Transition(label, start=6.0, length=1e-3 if label == "cut" else 16.0))


@pytest.mark.parametrize("label", LABELS)
def test_each_transition_looks_like_its_name(label: str) -> None:
    assert named_by_levels(example(label)) == label


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize(
    "change", [augment.mirror, augment.flip, augment.transpose, augment.reverse]
)
def test_symmetries_change_clip_and_label_alike(
    change: Callable[[augment.Clip, int], tuple[augment.Clip, int]], label: str
) -> None:
    clip, index = change(example(label), LABELS.index(label))
    assert named_by_levels(clip) == LABELS[index]


def test_label_maps_are_their_own_inverse() -> None:
    for mapping in (MIRRORED, FLIPPED, TRANSPOSED, REVERSED):
        assert [mapping[mapping[i]] for i in range(9)] == list(range(9))
    assert LABELS[REVERSED[LABELS.index("fade_in")]] == "fade_out"
    assert LABELS[TRANSPOSED[LABELS.index("wipe_right")]] == "wipe_down"


@pytest.mark.parametrize(
    ("transition", "name"),
    [
        (Transition("dissolve", 5.0, 20.0), "dissolve"),
        (Transition("dissolve", 8.2, 3.0), "cut"),  # fits between the frames 8 and 12
        (Transition("wipe_up", 16.5, 2.0), "cut"),
        (Transition("dissolve", 8.0, 8.0), ""),  # only frame 12 is in between
        (Transition("dissolve", 0.0, 40.0), ""),  # the new scene is never alone
        (Transition("fade_in", -4.0, 20.0), ""),  # the flat colour is never alone
        (Transition("fade_out", 5.0, 20.0), "fade_out"),
        (Transition("cut", 15.0, 1e-3), "cut"),
        (Transition("cut", 40.0, 1e-3), ""),  # after the end
        (Transition("none", 0.0, 1.0), "none"),
    ],
)
def test_classes_are_what_a_person_sees_in_eight_frames(transition: Transition, name: str) -> None:
    assert visible_label(transition, SAMPLED, 32, 32) == name


def test_wipe_of_a_wide_frame_is_judged_by_its_centre_square() -> None:
    # In 300 x 100 pixels the edge crosses the square in 3 frames, between two sampled ones.
    quick = Transition("wipe_right", 5.0, 9.0)
    assert visible_label(quick, SAMPLED, 100, 100) == "wipe_right"
    assert visible_label(quick, SAMPLED, 100, 300) == "cut"


@pytest.mark.parametrize("label", LABELS)
def test_random_transitions_show_their_label(label: str) -> None:
    rng = np.random.default_rng(5)
    drawn = [random_transition(rng, label, SAMPLED, 90, 160) for _ in range(20)]
    assert {visible_label(t, SAMPLED, 90, 160) for t in drawn} == {label}
    if label != "none":
        assert len({t.start for t in drawn}) == 20


def test_clip_that_is_too_short_for_a_transition_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no dissolve fits into 2 frames; make the clip longer"):
        random_transition(np.random.default_rng(0), "dissolve", np.array([0, 1]), 90, 160)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_scene_moves_within_the_frame(kind: str) -> None:
    scene = Scene(np.random.default_rng(3), 48, 64, 2.0, kind)
    frames = np.stack([scene.frame(t) for t in np.linspace(0, 2, 12)])
    assert frames.shape == (12, 48, 64, 3)
    assert frames.dtype == np.uint8
    assert frames.std() > 3


def test_clips_depend_on_nothing_but_the_seed() -> None:
    first, again = (render_clip(np.random.default_rng([4, 2]), "dissolve", 64) for _ in range(2))
    other = render_clip(np.random.default_rng([4, 3]), "dissolve", 64)
    assert first.shape == (8, 64, 64, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_fades_begin_or_end_with_one_colour() -> None:
    for seed in range(3):
        fade_in = render_clip(np.random.default_rng([6, seed]), "fade_in", 64)
        fade_out = render_clip(np.random.default_rng([7, seed]), "fade_out", 64)
        assert fade_in[0].std(axis=(0, 1)).max() < 3 < fade_in[-1].std(axis=(0, 1)).max()
        assert fade_out[-1].std(axis=(0, 1)).max() < 3 < fade_out[0].std(axis=(0, 1)).max()


def test_augmentation_keeps_what_is_flat_flat_and_what_is_constant_constant() -> None:
    clip = np.zeros((8, 72, 72, 3), np.uint8)
    clip[4:] = (200, 30, 90)
    rng = np.random.default_rng(0)
    for _ in range(10):
        planes, label = augment.augmented(rng, clip, LABELS.index("cut"), 64)
        assert planes.shape == (8, 3, 64, 64)
        assert label == LABELS.index("cut")
        assert np.ptp(planes, axis=(2, 3)).max() == 0
        assert np.array_equal(planes[0], planes[3])
        assert np.array_equal(planes[4], planes[7])
        assert not np.array_equal(planes[0], planes[7])


def test_normalised_is_what_the_preprocessing_configuration_says(tmp_path: Path) -> None:
    clips = np.random.default_rng(0).integers(0, 256, (1, 8, 64, 64, 3)).astype(np.uint8)
    model = start(small_config("space_only"), 0)
    save_model(model, tmp_path)
    values = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert values["size"] == {"shortest_edge": 64}
    assert values["crop_size"] == {"height": 64, "width": 64}
    scaled = clips * values["rescale_factor"] - np.array(values["image_mean"])
    expected = (scaled / np.array(values["image_std"])).transpose(0, 1, 4, 2, 3)
    np.testing.assert_allclose(augment.normalised(clips), expected, atol=1e-5)
    loaded = load_model(tmp_path)
    np.testing.assert_array_equal(logits_of(loaded, clips), logits_of(model.eval(), clips))


def test_patches_begin_as_orthogonal_frequencies() -> None:
    basis = frequency_basis(40, 16).reshape(40, -1)
    products = basis @ basis.T
    assert np.abs(products - np.diag(np.diag(products))).max() < 1e-6
    assert np.ptp(basis[0]) < 1e-7  # the first is the mean brightness


@pytest.mark.parametrize("attention_type", ["divided_space_time", "joint_space_time"])
def test_heads_begin_by_looking_along_time(attention_type: str) -> None:
    model = start(small_config(attention_type), 0).timesformer
    clip = np.random.default_rng(1).integers(0, 256, (1, 8, 64, 64, 3)).astype(np.uint8)
    output = model(torch.from_numpy(augment.normalised(clip)), output_attentions=True)
    patch, moment = 5, 3
    if attention_type == "divided_space_time":
        seen = output.temporal_attentions[0][patch, :, moment].argmax(-1)
    else:
        seen = output.attentions[0][0, :, 1 + patch * 8 + moment].argmax(-1) - 1 - patch * 8
    assert seen.tolist() == [moment, moment - 1, 0, 7]


def small_pool(folder: Path, count: int = 12) -> Path:
    runner = CliRunner()
    arguments = ["--output", str(folder), "--count", str(count), "--workers", "1", "--balanced"]
    result = runner.invoke(render.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder


def test_pool_is_rendered_once_and_carries_on(tmp_path: Path) -> None:
    folder = small_pool(tmp_path / "pool")
    pool = open_pool(folder, writable=True)
    assert pool.clips.shape == (12, 8, 72, 72, 3)
    assert pool.labels.tolist() == [i % 9 for i in range(12)]
    before = np.array(pool.clips)
    pool.clips[7], pool.labels[7] = 0, 255  # as if an interruption had come before this one
    small_pool(folder)
    assert np.array_equal(open_pool(folder).clips, before)
    with pytest.raises(ValueError, match="holds a pool of shape"):
        create_pool(folder, 5, 72)


def test_interrupted_training_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    create_pool(tmp_path, 6, 72)
    pool = open_pool(tmp_path, writable=True)
    pool.clips[:] = rng.integers(0, 256, pool.clips.shape)
    pool.labels[:] = range(6)
    recipe = train.Recipe("divided_space_time", steps=3, batch_size=2)

    whole = train.Training(recipe)
    for pixels, labels in train.batches(pool, recipe, 0):
        whole.advance(pixels, labels)

    first = train.Training(recipe)
    batches = train.batches(pool, recipe, 0)
    first.advance(*next(batches))
    first.save(tmp_path / "state.pt")
    second = train.Training(recipe)
    second.load(tmp_path / "state.pt")
    for pixels, labels in train.batches(pool, recipe, second.step):
        second.advance(pixels, labels)

    assert second.step == whole.step == 3
    start_weights = start(small_config("divided_space_time"), 0).state_dict()
    for name, value in whole.averaged_model().state_dict().items():
        torch.testing.assert_close(second.averaged_model().state_dict()[name], value)
    moved = [n for n, v in whole.model.state_dict().items() if not torch.equal(v, start_weights[n])]
    assert "classifier.weight" in moved
    assert "timesformer.encoder.layer.0.temporal_attention.attention.qkv.weight" in moved


def test_training_learns_to_tell_three_clips_apart(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    create_pool(tmp_path, 3, 72)
    pool = open_pool(tmp_path, writable=True)
    for index, label in enumerate(("none", "cut", "dissolve")):
        pool.clips[index] = render_clip(np.random.default_rng([8, index]), label, 72)
        pool.labels[index] = LABELS.index(label)
    recipe = train.Recipe("divided_space_time", steps=80, batch_size=4)
    training = train.Training(recipe)
    batches = itertools.islice(train.batches(pool, recipe, 0), 40)
    losses = [training.advance(*batch)[0] for batch in batches]
    assert np.mean(losses[:3]) > 2.0  # ln 9 at the start
    assert np.mean(losses[-5:]) < 1.8


def write_video(path: Path, frames: list[npt.NDArray[np.uint8]]) -> None:
    path.write_bytes(encode(frames, 15, 20, "ultrafast"))


def test_footage_is_split_at_its_cuts_and_pairs_differ(tmp_path: Path) -> None:
    def shot(seed: int, count: int) -> list[npt.NDArray[np.uint8]]:
        scene = Scene(np.random.default_rng([9, seed]), 64, 96, count / 15, "still")
        return [scene.frame(i / 15) for i in range(count)]

    write_video(tmp_path / "two.mp4", shot(0, 20) + shot(1, 15))
    write_video(tmp_path / "one.mp4", shot(2, 30))
    (tmp_path / "odd.mp4").write_bytes(b"not a video")
    footage = load_footage(tmp_path)
    assert [(s.name, len(s.frames)) for s in footage.shots] == [
        ("one.mp4", 30),
        ("two.mp4", 20),
        ("two.mp4", 15),
    ]
    plan = Plan("cut", "shot", 64, 96, 24, 15, 20, "ultrafast", 0)
    frames, transition = joined_frames(np.random.default_rng(1), plan, footage.random_scene)
    assert len(frames) == 24
    assert transition.label == "cut" or transition.length < 24
    assert np.abs(frames[0].astype(float) - frames[-1]).mean() > 10


def test_folder_with_too_little_footage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fewer than two videos"):
        load_footage(tmp_path)


def test_evaluation_counts_and_prints_by_class() -> None:
    confusion = np.diag(np.full(9, 10))
    confusion[2] = 0
    confusion[2, 2], confusion[2, 3] = 6, 4
    result = Evaluation(confusion)
    assert result.accuracy == pytest.approx(86 / 90)
    assert result.share("fade_in", "fade_out") == pytest.approx(0.4)
    assert "| fade in |  |  | **6** | 4 |  |  |  |  |  | 60.0% |" in result.table()


def test_tables_go_between_the_markers_of_a_card() -> None:
    begin, end = "<!-- variants: begin -->", "<!-- variants: end -->"
    others = "<!-- evaluation: begin -->\nkept\n<!-- evaluation: end -->"
    new = between_markers(f"# Card\n\n{others}\n{begin}\nold\n{end}\n\nend\n", "table", VARIANTS)
    assert new == f"# Card\n\n{others}\n{begin}\n\ntable\n\n{end}\n\nend\n"
    for card in ("# Card", f"{begin}{begin}{end}"):
        with pytest.raises(ValueError, match="each once"):
            between_markers(card, "table", EVALUATION)


def test_cost_of_reduced_precision_is_counted_in_labels() -> None:
    true = np.arange(1000) % 9
    pytorch = true.copy()
    pytorch[:100] = (true[:100] + 1) % 9
    found = pytorch.copy()
    found[90:100] = true[90:100]  # right where PyTorch is wrong
    found[500:515] = (true[500:515] + 1) % 9  # wrong where it is right
    result = cost("int8", true, pytorch, found)
    assert result.accuracy == pytest.approx(0.895)
    assert result.lost == pytest.approx(0.5)
    assert result.agreement == pytest.approx(0.975)


@pytest.mark.parametrize(
    ("variant", "lost", "agreement", "passed"),
    [
        ("int8", 0.5, 0.99, True),
        ("int8", 0.51, 1.0, False),
        ("int8", -3.0, 0.9899, False),
        ("int8_avx2", 0.5, 0.99, True),
        ("int8_avx2", 0.51, 1.0, False),
        ("fp16", 0.1 + 1e-9, 0.99, True),
        ("fp16", 0.11, 0.99, False),
        ("q4", 1.0, 0.99, True),
        ("q4", 1.01, 1.0, False),
    ],
)
def test_what_reduced_precision_may_cost(
    variant: str, lost: float, agreement: float, passed: bool
) -> None:
    assert Cost(variant, 0.5, lost, agreement).passed is passed


def test_accuracy_command_measures_every_precision_and_writes_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    shutil.copytree(Path(__file__).parents[2] / "models" / "shot-transitions-divided", model)
    create_pool(tmp_path / "pool", 9, 64)
    pool = open_pool(tmp_path / "pool", writable=True)
    for index, label in enumerate(LABELS):
        pool.clips[index] = render_clip(np.random.default_rng([12, index]), label, 64)
        pool.labels[index] = index
    right = (logits_of(load_model(model), np.array(pool.clips)).argmax(1) == pool.labels).mean()
    arguments = ["--model", str(model), "--renders", str(tmp_path / "pool"), "--write-card"]
    result = CliRunner().invoke(accuracy.main, arguments)
    assert result.exit_code == 0, result.output
    rows = [line for line in result.output.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[1:]] == [
        "| PyTorch float32",
        *(f"| {variant}" for variant in ("fp32", "int8", "int8_avx2", "fp16", "q4")),
    ]
    assert f"{right:.2%}" in rows[1]
    for row in (rows[2], rows[5]):
        assert row.endswith("100.00% | at most 0.1, at least 99% | ok |")
    assert result.output.strip() in (model / "README.md").read_text()

    missed = (Cost("int8", 0.9, 0.0, 1.0), Cost("q4", 0.8, 10.0, 0.9))
    monkeypatch.setattr(accuracy, "measure", lambda *_: ("table", missed))
    result = CliRunner().invoke(accuracy.main, arguments[:-1])
    assert result.exit_code == 1
    assert "model: q4 missed the goals" in result.output


def test_space_only_cannot_know_the_order_of_frames() -> None:
    model = start(small_config("space_only"), 3).eval()
    torch.nn.init.normal_(model.classifier.get_parameter("weight"))
    clip = render_clip(np.random.default_rng([10, 0]), "fade_in", 64)[None]
    np.testing.assert_allclose(
        logits_of(model, clip), logits_of(model, clip[:, ::-1]), rtol=1e-4, atol=1e-5
    )


@pytest.mark.skipif(not os.environ.get("TIMESFORMER_TEST_CLIPS"), reason="no folder of videos")
def test_real_footage_joins_into_clips(tmp_path: Path) -> None:
    folder = Path(os.environ["TIMESFORMER_TEST_CLIPS"])
    small = sorted(path for path in folder.iterdir() if 50_000 < path.stat().st_size < 600_000)
    for path in small[:6]:
        (tmp_path / path.name).symlink_to(path)
    footage = load_footage(tmp_path)
    for index, label in enumerate(LABELS):
        clip = render_clip(np.random.default_rng([11, index]), label, 64, footage.random_scene)
        assert clip.shape == (8, 64, 64, 3)


def test_commands_refuse_bad_folders_in_one_line(tmp_path: Path) -> None:
    runner = CliRunner()
    arguments = ["--output", str(tmp_path / "pool"), "--videos", str(tmp_path), "--count", "9"]
    result = runner.invoke(render.main, arguments)
    assert result.exit_code == 1
    assert "fewer than two videos" in result.output
    create_pool(tmp_path / "pool", 9, 72)
    save_model(start(small_config("space_only"), 0), tmp_path / "model")
    arguments = ["--model", str(tmp_path / "model"), "--renders", str(tmp_path / "pool")]
    result = runner.invoke(evaluate.main, arguments)
    assert result.exit_code == 1
    assert "clips of 72 pixels and the model takes 64; render with --size 64" in result.output
