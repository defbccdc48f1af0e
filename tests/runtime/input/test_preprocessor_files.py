"""Which of the files beside a model describes its preprocessing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from timesformer_runtime.errors import InvalidModelError
from timesformer_runtime.input.preprocessor_files import (
    PREPROCESSOR_FILES,
    PreprocessorConfig,
    choose_preprocessor,
)

from tests.transformers_classes import since_transformers_5

NESTED, VIDEO, IMAGE = PREPROCESSOR_FILES


def write(folder: Path, files: dict[str, Any]) -> list[Path]:
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values))
    return [folder / name for name in PREPROCESSOR_FILES if name in files]


def chosen(folder: Path, files: dict[str, Any]) -> PreprocessorConfig:
    config = choose_preprocessor(write(folder, files))
    assert config is not None
    return config


def mean(value: float) -> dict[str, Any]:
    return {"image_mean": [value] * 3}


EVERY_DESCRIPTION = {
    (NESTED, "video_processor"): mean(0.1),
    (VIDEO, None): mean(0.2),
    (NESTED, "image_processor"): mean(0.3),
    (IMAGE, None): mean(0.4),
}


@since_transformers_5()
@pytest.mark.parametrize(
    "present",
    [
        present
        for count in range(1, 5)
        for present in itertools.combinations(EVERY_DESCRIPTION, count)
    ],
    ids=str,
)
def test_the_one_that_transformers_takes(
    present: tuple[tuple[str, str | None], ...], tmp_path: Path
) -> None:
    video = pytest.importorskip("transformers.models.auto.video_processing_auto")
    image = pytest.importorskip("transformers.models.auto.image_processing_auto")
    files: dict[str, Any] = {}
    for file, key in present:
        values = EVERY_DESCRIPTION[file, key]
        files.setdefault(file, {}).update(values if key is None else {key: values})

    config = chosen(tmp_path, files)

    # A pipeline prefers a video processor, but reads an image processor's file where none is.
    has_video = (NESTED, "video_processor") in present or VIDEO in files
    theirs = video.get_video_processor_config if has_video else image.get_image_processor_config
    assert config.values == theirs(tmp_path)
    assert len(config.notes) == len(present) - 1
    for note in config.notes:
        assert f"{config.source} counts, as in transformers" in note


def test_files_that_agree_need_no_word(tmp_path: Path) -> None:
    short = {"video_processor_type": "VideoMAEVideoProcessor", "size": 224}
    long = {
        "image_processor_type": "VideoMAEImageProcessor",
        "size": {"shortest_edge": 224},
        "rescale_factor": 1 / 255,
    }
    assert chosen(tmp_path, {VIDEO: short, IMAGE: long}).notes == ()


def test_a_processor_file_that_nests_nothing_does_not_count(tmp_path: Path) -> None:
    other = {"processor_class": "SomeProcessor", "video_processor": None}
    assert chosen(tmp_path, {NESTED: other, IMAGE: mean(0.4)}).values == mean(0.4)
    assert choose_preprocessor([tmp_path / NESTED]) is None
    assert choose_preprocessor([]) is None


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({NESTED: {"video_processor": [1]}}, "video_processor is [1]; it must be a JSON object"),
        ({NESTED: [1]}, "holds a list"),
        ({VIDEO: "text"}, "holds a str"),
    ],
)
def test_broken_files(tmp_path: Path, files: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidModelError) as caught:
        choose_preprocessor(write(tmp_path, files))
    assert said in str(caught.value)
    assert str(tmp_path / next(iter(files))) in str(caught.value)


def test_a_value_that_is_wrong_is_looked_for_in_the_right_place(tmp_path: Path) -> None:
    config = chosen(tmp_path, {NESTED: {"image_processor": {"size": 0}}, IMAGE: mean(0.4)})
    with pytest.raises(InvalidModelError) as caught:
        config.read()
    assert "correct it in processor_config.json (image_processor)" in str(caught.value)


def test_the_defaults_are_those_of_the_video_processor(tmp_path: Path) -> None:
    values = {"video_processor_type": "TimesformerVideoProcessor"}
    found = chosen(tmp_path, {VIDEO: values}).read()
    assert (found.image_mean, found.image_std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (found.size, found.crop_size) == (224, (224, 224))


def test_a_video_processor_that_chooses_frames_is_told(tmp_path: Path) -> None:
    for values, count in (
        ({"do_sample_frames": False, "num_frames": 8}, 0),
        ({"do_sample_frames": True, "fps": 2, "num_frames": None}, 1),
    ):
        notes = chosen(tmp_path, {VIDEO: values}).notes
        assert len(notes) == count
        assert all("do_sample_frames True, fps 2" in note for note in notes)
