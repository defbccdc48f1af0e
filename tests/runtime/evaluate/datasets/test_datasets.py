"""Datasets in every form that is read, as the people who publish them write them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from timesformer_runtime.errors import InvalidOptionError
from timesformer_runtime.evaluate.datasets import DatasetOptions, Sample, read_dataset

LABELS = ("apply eye makeup", "riding a bike", "Throwing [something] (up)", "cat")
Read = Callable[..., list[tuple[str, tuple[int, ...]]]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def samples(
    data: Path, model: Sequence[str] = LABELS, *, several: bool = False, **options: object
) -> tuple[Sample, ...]:
    chosen = DatasetOptions(**options)  # type: ignore[arg-type]
    return read_dataset(data, model, chosen, several=several).samples


def pairs(data: Path, **options: object) -> list[tuple[str, tuple[int, ...]]]:
    """The names and labels of a dataset all of whose files exist."""
    found = samples(data, **options)  # type: ignore[arg-type]
    assert all(Path(sample.path).is_absolute() for sample in found)
    assert all(Path(sample.path).exists() for sample in found)
    return [(sample.file, sample.true) for sample in found]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# --- Folders -------------------------------------------------------------------------------------


def test_a_folder_for_each_class(folder: Path) -> None:
    touch(folder, "data/ApplyEyeMakeup/a.avi", "data/ApplyEyeMakeup/part/b.mp4", "data/CAT/c.mp4")
    touch(folder, "data/CAT/notes.txt", "data/.cache/x.mp4")
    expected = [("ApplyEyeMakeup/a.avi", (0,)), ("ApplyEyeMakeup/part/b.mp4", (0,))]
    assert pairs(folder / "data") == [*expected, ("CAT/c.mp4", (3,))]


def test_folders_named_by_numbers(folder: Path) -> None:
    touch(folder, "data/3/a.mp4", "data/0/b.mp4")
    assert pairs(folder / "data") == [("0/b.mp4", (0,)), ("3/a.mp4", (3,))]


def test_videos_without_a_class_are_told(folder: Path) -> None:
    touch(folder, "data/cat/a.mp4", "data/loose.mp4", "data/riding_a_bike/readme.txt")
    dataset = read_dataset(folder / "data", LABELS, DatasetOptions(), several=False)
    assert len(dataset.samples) == 1
    assert "loose.mp4" in dataset.notes[0]
    assert "riding_a_bike" in dataset.notes[1]


def test_parts_of_a_dataset_are_not_classes(folder: Path) -> None:
    touch(folder, "data/train/cat/a.mp4", "data/val/cat/b.mp4")
    with pytest.raises(InvalidOptionError, match=r"train, val of a dataset.*data/val"):
        samples(folder / "data")


@pytest.mark.parametrize("names", [[], ["a.mp4"], ["cat/a.txt"]])
def test_a_folder_without_classes(folder: Path, names: list[str]) -> None:
    (folder / "data").mkdir()
    touch(folder / "data", *names)
    with pytest.raises(InvalidOptionError, match="folder for each class"):
        samples(folder / "data")


def test_a_folder_takes_no_options_of_lists(folder: Path) -> None:
    touch(folder, "data/cat/a.mp4")
    with pytest.raises(InvalidOptionError, match="`root` is for lists"):
        samples(folder / "data", root=folder)


# --- Lists ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "clips/a b.mp4 0\nclips/c.mp4 3\n",
        "clips/a b.mp4,0\r\nclips/c.mp4,3\r\n",
        "\ufeffclips/a b.mp4\t0\nclips/c.mp4\t3",
        "\n'clips/a b.mp4'  0\n\nclips/c.mp4   3\n",
        "clips/a b.mp4 apply eye makeup\nclips/c.mp4 cat\n",
        "clips/a b.mp4,apply_eye_makeup\nclips/c.mp4,Cat\n",
        "clips/a b.mp4\tApply Eye Makeup\nclips/c.mp4\tcat\n",
        '"clips/a b.mp4","apply eye makeup"\n"clips/c.mp4","cat"\n',
    ],
    ids=range(8),
)
def test_lists(folder: Path, text: str) -> None:
    touch(folder, "clips/a b.mp4", "clips/c.mp4")
    for name in ("list.txt", "list.csv"):
        found = pairs(write(folder / name, text))
        assert found == [("clips/a b.mp4", (0,)), ("clips/c.mp4", (3,))]


def test_commas_in_names(folder: Path) -> None:
    touch(folder, "Smith, John.mp4", "Doe, Jane.mp4")
    for text in ("Smith, John.mp4 3\nDoe, Jane.mp4 0\n", "Smith, John.mp4,3\nDoe, Jane.mp4,0\n"):
        found = pairs(write(folder / "list.txt", text))
        assert found == [("Smith, John.mp4", (3,)), ("Doe, Jane.mp4", (0,))]


def test_names_and_labels_that_look_like_each_other(folder: Path) -> None:
    touch(folder, "a.mp4 1.mp4", "clip 7", "clip  8")
    assert pairs(write(folder / "l.txt", "a.mp4 1.mp4 2\n")) == [("a.mp4 1.mp4", (2,))]
    assert pairs(write(folder / "l.txt", "clip 7 0\nclip  8 1\n")) == [
        ("clip 7", (0,)),
        ("clip  8", (1,)),
    ]
    model = ("label 0", "label 1")
    found = samples(write(folder / "l.txt", "a.mp4 1.mp4 label 1\n"), model)
    assert [(sample.file, sample.true) for sample in found] == [("a.mp4 1.mp4", (1,))]


def test_several_labels_in_a_line(folder: Path) -> None:
    touch(folder, "a.mp4", "b 2.mp4")
    for text in ("a.mp4 1 3\nb 2.mp4 2\n", "a.mp4,1,3\nb 2.mp4,2\n", "a.mp4 1\na.mp4 3\nb 2.mp4 2"):
        found = pairs(write(folder / "list.txt", text), several=True)
        assert found == [("a.mp4", (1, 3)), ("b 2.mp4", (2,))]
    for text in (
        "a.mp4,riding a bike,cat\nb 2.mp4,cat",
        "a.mp4,riding a bike|cat\nb 2.mp4,cat",
        "a.mp4 riding a bike; cat\nb 2.mp4 cat",
        "a.mp4 1|3\nb 2.mp4 3",
        "a.mp4\t1;3\nb 2.mp4\t3",
        "a.mp4 1 | 3\n'b 2.mp4' 3",
    ):
        found = pairs(write(folder / "l.txt", text), several=True)
        assert found == [("a.mp4", (1, 3)), ("b 2.mp4", (3,))]


def test_the_root_of_a_list(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    touch(folder, "here/a.mp4")
    touch(other, "lists/b.mp4", "videos/c.mp4")
    assert pairs(write(other / "lists" / "l.txt", "b.mp4 0")) == [("b.mp4", (0,))]
    assert pairs(write(other / "lists" / "l.txt", "here/a.mp4 0")) == [("here/a.mp4", (0,))]
    found = pairs(write(other / "lists" / "l.txt", "c.mp4 0"), root=other / "videos")
    assert found == [("c.mp4", (0,))]
    found = pairs(write(other / "lists" / "l.txt", f"{other}/videos/c.mp4 0"))
    assert found == [(f"{other}/videos/c.mp4", (0,))]


def test_missing_files_stay_in_the_list(folder: Path) -> None:
    touch(folder, "a.mp4")
    found = samples(write(folder / "list.txt", "a.mp4 0\nmissing.mp4 1\n"))
    assert [sample.file for sample in found] == ["a.mp4", "missing.mp4"]


def test_names_that_no_file_can_have_are_missing_files(folder: Path) -> None:
    touch(folder, "a.mp4")
    found = samples(write(folder / "list.txt", f"a.mp4 0\n{'x' * 5000}.mp4 1\n"))
    assert [sample.true for sample in found] == [(0,), (1,)]


def test_a_video_counts_once(folder: Path) -> None:
    touch(folder, "a.mp4", "b.mp4")
    text = "a.mp4 0\n./a.mp4 0\nb.mp4 1\n"
    dataset = read_dataset(write(folder / "l.txt", text), LABELS, DatasetOptions(), several=False)
    assert [sample.true for sample in dataset.samples] == [(0,), (1,)]
    assert dataset.notes == ("1 of the entries repeat a video and count once",)
    with pytest.raises(InvalidOptionError, match=r"two labels, '0' \(line 1\) and '1' \(line 2\)"):
        samples(write(folder / "l.txt", "a.mp4 0\na.mp4 1\n"))


# --- Tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["file_name", "video"])
@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_a_table_with_a_header(folder: Path, column: str, separator: str) -> None:
    touch(folder, "a, b.mp4", "c.mp4")
    rows = ["id", column, "label"], ["1", '"a, b.mp4"', "riding a bike"], ["2", "c.mp4", "cat"]
    text = "\n".join(separator.join(row) for row in rows)
    assert pairs(write(folder / "t.csv", text)) == [("a, b.mp4", (1,)), ("c.mp4", (3,))]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_hugging_faces_metadata(folder: Path, name: str) -> None:
    touch(folder, "data/train/a.mp4", "data/b.mp4")
    rows = [{"file_name": "train/a.mp4", "label": 3}, {"file_name": "b.mp4", "label": 1}]
    text = "\n".join(map(json.dumps, rows))
    if name.endswith("csv"):
        text = "file_name,label\ntrain/a.mp4,3\nb.mp4,1\n"
    write(folder / "data" / name, text)
    assert pairs(folder / "data") == [("train/a.mp4", (3,)), ("b.mp4", (1,))]


def test_several_labels_in_a_cell(folder: Path) -> None:
    touch(folder, "a.mp4")
    for cell in ("1|3", "1;3", '"[1, 3]"', "riding a bike|cat"):
        text = f"video,label\na.mp4,{cell}\n"
        assert pairs(write(folder / "t.csv", text), several=True) == [("a.mp4", (1, 3))]


def test_the_part_of_a_table(folder: Path) -> None:
    touch(folder, "a.mp4", "b.mp4")
    path = write(folder / "t.csv", "video,label,split\na.mp4,0,train\nb.mp4,1,val\n")
    assert pairs(path, split="val") == [("b.mp4", (1,))]
    with pytest.raises(InvalidOptionError, match=r"several parts.*train, val.*`split`"):
        samples(path)
    with pytest.raises(InvalidOptionError, match=r"'test'.*train, val"):
        samples(path, split="test")
    with pytest.raises(InvalidOptionError, match="`split` is for tables"):
        samples(write(folder / "l.txt", "a.mp4 0\n"), split="val")


# --- Kinetics ------------------------------------------------------------------------------------

KINETICS = (
    "label,youtube_id,time_start,time_end,split\n"
    "riding a bike,-0abc_DEF12,7,17,val\n"
    '"Throwing [something] (up)",xyzxyzxyzxy,120,130,val\n'
    "cat,gone_gone_g,1,11,val\n"
)


@pytest.mark.parametrize(
    "names",
    [
        ["-0abc_DEF12_000007_000017.mp4", "xyzxyzxyzxy_000120_000130.mp4"],
        ["riding a bike/-0abc_DEF12_000007_000017.mp4", "x/xyzxyzxyzxy_000120_000130.mkv"],
        ["-0abc_DEF12.mp4", "xyzxyzxyzxy.webm"],
        ["riding_a_bike/-0abc_DEF12_7_17.mp4", "val/deep/xyzxyzxyzxy.mp4"],
    ],
    ids=range(4),
)
@pytest.mark.parametrize("quoted", [False, True])
def test_kinetics(folder: Path, names: list[str], quoted: bool) -> None:
    touch(folder / "videos", *names)
    text = '"label","youtube_id","time_start","time_end","split","is_cc"\n' if quoted else ""
    path = write(folder / "val.csv", text + KINETICS.partition("\n")[2] if quoted else KINETICS)
    found = samples(path, root=folder / "videos")
    assert [sample.file for sample in found] == [*names, "gone_gone_g_000001_000011.mp4"]
    assert [sample.true for sample in found] == [(1,), (2,), (3,)]
    assert [Path(sample.path).exists() for sample in found] == [True, True, False]


def test_kinetics_prefers_the_file_in_the_folder_of_its_class(folder: Path) -> None:
    name = "-0abc_DEF12_000007_000017.mp4"
    touch(folder, f"cat/{name}", f"riding_a_bike/{name}", f"z/{name}")
    assert samples(write(folder / "val.csv", KINETICS))[0].file == f"riding_a_bike/{name}"


def test_kinetics_with_times_that_are_none(folder: Path) -> None:
    path = write(folder / "val.csv", KINETICS.replace(",120,", ",soon,"))
    message = "line 3 has the time_start 'soon'; it must be a number of seconds"
    with pytest.raises(InvalidOptionError, match=message):
        samples(path)


@pytest.mark.parametrize("time", ["7.5", "nan"])
def test_kinetics_with_times_that_are_no_whole_seconds(folder: Path, time: str) -> None:
    touch(folder, "-0abc_DEF12.mp4")
    path = write(folder / "val.csv", KINETICS.replace(",7,", f",{time},"))
    assert samples(path)[0].file == "-0abc_DEF12.mp4"


def test_kinetics_from_the_first_second(folder: Path) -> None:
    touch(folder, "abc_000000_000010.mp4")
    row = {"label": "cat", "youtube_id": "abc", "time_start": 0, "time_end": 10}
    path = write(folder / "val.jsonl", json.dumps(row))
    assert pairs(path) == [("abc_000000_000010.mp4", (3,))]


def test_kinetics_without_labels(folder: Path) -> None:
    path = write(folder / "test.csv", "youtube_id,time_start,time_end,split\nabc,0,10,test\n")
    with pytest.raises(InvalidOptionError, match=r"none named label or labels.*for tests"):
        samples(path)


# --- Something-Something -------------------------------------------------------------------------

SOMETHING = [
    {
        "id": "78687",
        "label": "throwing a pen up",
        "template": "Throwing [something] (up)",
        "placeholders": ["a pen"],
    },
    {"id": "42", "label": "a cat", "template": "Cat", "placeholders": []},
]


def test_something_something(folder: Path) -> None:
    touch(folder, "v/78687.webm", "v/42.mp4")
    path = write(folder / "validation.json", json.dumps(SOMETHING))
    assert pairs(path, root=folder / "v") == [("78687.webm", (2,)), ("42.mp4", (3,))]
    numbers = {name: str(number) for number, name in enumerate(LABELS)}
    numbers["Throwing something (up)"] = numbers.pop("Throwing [something] (up)")
    names = write(folder / "labels.json", json.dumps(numbers))
    assert pairs(path, root=folder / "v", labels=names)[0] == ("78687.webm", (2,))


def test_something_something_of_a_model_without_names(folder: Path) -> None:
    touch(folder, "78687.webm", "42.webm")
    path = write(folder / "validation.json", json.dumps(SOMETHING))
    names = write(folder / "labels.json", json.dumps({"Throwing something (up)": "1", "Cat": "0"}))
    found = samples(path, ("LABEL_0", "LABEL_1"), labels=names)
    assert [sample.true for sample in found] == [(1,), (0,)]
    with pytest.raises(InvalidOptionError, match=r"has no names.*give them with `labels`"):
        samples(path, ("LABEL_0", "LABEL_1"))


def test_something_something_without_labels(folder: Path) -> None:
    path = write(folder / "test.json", json.dumps([{"id": "1420"}]))
    with pytest.raises(InvalidOptionError, match=r"annotation 0 \(id 1420\) has no template"):
        samples(path)


# --- Labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4 ridin a bike", "line 1.*'ridin a bike'.*nearest are 'riding a bike'"),
        ("a.mp4 4", r"'4', which the model does not have.*0 to 3: lists that count from 1"),
        ("a.mp4 -1", "'-1'.*0 to 3"),
        ("a.mp4 0\nb.mp4 cat", r"'0'.*names and numbers"),
        ("a.mp4", "line 1 is 'a.mp4'; it must be a path and a label"),
        ("", "is empty"),
        ("x/1 163 1\nx/2 122 1", "folders of frames"),
        ("a.mp4 0 1", "'0 1'.*if a video may have several labels, say `function_to_apply=sigmoid`"),
        ("a.mp4,0,1", "a.mp4,0; if a video may have several labels, say `function_to_apply=sig"),
        (
            "a.mp4 0\na.mp4 1",
            "has two labels.*if a video may have several labels, say `function_to",
        ),
        ("x\\a.mp4,0", r"write / in place of \\ in the paths, or .*`root`"),
        ("a.mp4,0,1", "say `function_to_apply=sigmoid`, else .*, or give the folder .*`root`"),
        ("a.mp4,riding a bike,1", "say `function_to_apply=sigmoid`"),
        ("my holiday.mp4 copy.mp4 1", r"holiday.mp4 copy.mp4; give the folder .* `root`$"),
        ("a.mp4 lion\nb.mp4 bear", r"\(2 of 2 different labels are unknown\)"),
        ("file_name,label\na.mp4\n", "line 2 has no label; fill it in"),
        ("missing.mp4 0\ngone.mp4 1", "none of the 2 files .* exists.*missing.mp4.*`root`"),
    ],
)
def test_bad_lists(folder: Path, text: str, message: str) -> None:
    touch(folder, "a.mp4", "b.mp4")
    with pytest.raises(InvalidOptionError, match=message):
        samples(write(folder / "list.txt", text))


def test_labels_that_only_differ_in_signs(folder: Path) -> None:
    touch(folder, "a.mp4")
    labels = ("fade in", "fade_in")
    assert samples(write(folder / "l.txt", "a.mp4,fade_in"), labels)[0].true == (1,)
    with pytest.raises(
        InvalidOptionError, match="line 1: the label 'Fade-In' can mean 'fade in' and 'fade_in'"
    ):
        samples(write(folder / "l.txt", "a.mp4,Fade-In"), labels)


def test_names_that_are_numbers(folder: Path) -> None:
    touch(folder, "a.mp4")
    path = write(folder / "l.txt", "a.mp4 2")
    assert samples(path, ("2", "1", "0"))[0].true == (0,)
    assert samples(path, ("x", "y", "z"))[0].true == (2,)


@pytest.mark.parametrize(
    "text",
    [
        "riding a bike\ncat\n",
        "0 riding a bike\n1 cat\n",
        "id,name\n0,riding a bike\n1,cat\n",
        "name,id\nriding a bike,0\ncat,1\n",
        '["riding a bike", "cat"]',
        '{"0": "riding a bike", "1": "cat"}',
        '{"riding a bike": 0, "cat": 1}',
    ],
    ids=range(7),
)
def test_a_labels_file(folder: Path, text: str) -> None:
    touch(folder, "a.mp4", "b.mp4")
    path = write(folder / "l.txt", "a.mp4 1\nb.mp4 0")
    names = write(folder / "names.txt", text)
    model = ("riding a bike", "cat")
    assert [s.true for s in samples(path, model, labels=names)] == [(1,), (0,)]
    turned = ("cat", "riding a bike")
    with pytest.raises(InvalidOptionError, match=r"numbers 'riding a bike' 0.*model 1.*labels_by"):
        samples(path, turned, labels=names)
    by_name = samples(path, turned, labels=names, labels_by="names")
    assert [s.true for s in by_name] == [(0,), (1,)]
    by_number = samples(path, turned, labels=names, labels_by="numbers")
    assert [s.true for s in by_number] == [(1,), (0,)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("riding a bike\n", r"label '1', which has no name in .*names.txt, which has 1 name; add"),
        ("cat\ncat\n", "names both 0 and 1 'cat'; correct one of them"),
    ],
)
def test_a_bad_labels_file(folder: Path, text: str, message: str) -> None:
    touch(folder, "a.mp4")
    path = write(folder / "l.txt", "a.mp4 1")
    with pytest.raises(InvalidOptionError, match=message):
        samples(path, ("riding a bike", "cat"), labels=write(folder / "names.txt", text))


def test_names_of_a_labels_file_where_numbers_count(folder: Path) -> None:
    """Names may be missing or repeated there, but a name must have one number."""
    touch(folder, "a.mp4", "b.mp4")
    names = write(folder / "names.txt", "0 dog\n1 dog\n")
    path = write(folder / "l.txt", "a.mp4 1\nb.mp4 2\n")
    found = samples(path, labels=names, labels_by="numbers")
    assert [sample.true for sample in found] == [(1,), (2,)]
    assert samples(path, ("LABEL_0", "LABEL_1", "LABEL_2"), labels=names) == found
    path.write_text("a.mp4 7\n")
    with pytest.raises(InvalidOptionError, match=r"'7', which the model does not have.*0 to 3"):
        samples(path, labels=names, labels_by="numbers")
    path.write_text("a.mp4 dog\n")
    with pytest.raises(InvalidOptionError, match="names both 0 and 1 'dog'"):
        samples(path, labels=names, labels_by="numbers")


def test_labels_by_needs_a_labels_file() -> None:
    with pytest.raises(InvalidOptionError, match="`labels_by` is names, but there is no labels"):
        DatasetOptions(labels_by="names")


def test_numbers_and_names_that_contradict_each_other(folder: Path) -> None:
    touch(folder, "a.mp4", "b.mp4")
    text = "file_name,label,label_name\na.mp4,3,cat\nb.mp4,2,Riding_a_bike\n"
    path = write(folder / "l.csv", text)
    message = (
        "line 3 has the label '2' and the name 'Riding.*give the names alone as the column label"
    )
    with pytest.raises(InvalidOptionError, match=message):
        samples(path)
    path.write_text(text.replace("b.mp4,2", "b.mp4,1"))
    assert [sample.true for sample in samples(path)] == [(3,), (1,)]
    path.write_text("file_name,label_name\na.mp4,cat\nb.mp4,Riding_a_bike\n")
    assert [sample.true for sample in samples(path)] == [(3,), (1,)]


@pytest.mark.parametrize("column", ["class_name", "class", "name"])
def test_columns_that_are_no_names_of_the_labels(folder: Path, column: str) -> None:
    touch(folder, "a.mp4")
    path = write(folder / "l.csv", f"file_name,label,{column}\na.mp4,2,cat\n")
    assert samples(path)[0].true == (2,)


def test_an_ambiguous_name_is_told_with_its_line(folder: Path) -> None:
    touch(folder, "a.mp4")
    path = write(folder / "l.csv", "file_name,label,label_name\na.mp4,0,Fade-In\n")
    with pytest.raises(InvalidOptionError, match=r"l\.csv: line 2: the label 'Fade-In' can mean"):
        samples(path, ("fade in", "fade_in"))


def test_several_labels_with_a_comma(folder: Path) -> None:
    touch(folder, "a.mp4")
    path = write(folder / "l.csv", 'file_name,label\na.mp4,"0,1"\n')
    with pytest.raises(InvalidOptionError, match=r"write several labels as 0\|1"):
        samples(path, several=True)
    for cell in ("riding a bike|cat", "['riding a bike', 'cat']"):
        path.write_text(f'file_name,label\na.mp4,"{cell}"\n')
        with pytest.raises(InvalidOptionError, match="say `function_to_apply=sigmoid`"):
            samples(path)


def test_a_labels_file_that_counts_from_1(folder: Path) -> None:
    touch(folder, "a.mp4", "b.mp4")
    path = write(folder / "l.txt", "a.mp4 1\nb.mp4 2")
    names = write(folder / "classInd.txt", "1 RidingABike\n2 Cat\n")
    found = samples(path, ("riding a bike", "cat"), labels=names)
    assert [sample.true for sample in found] == [(0,), (1,)]


# --- Files that are something else ---------------------------------------------------------------


def test_files_that_are_not_datasets(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "video.mp4").write_bytes(b"\x00\x00\x00 ftypisom\xff\xfe")
    write(folder / "broken.json", "[{")
    write(folder / "object.json", "{}")
    write(folder / "rows.jsonl", "[1]\n")
    write(folder / "nul.csv", "a\x00.mp4,cat\n")
    write(folder / "wide.csv", f"a.mp4,{'x' * 200_000}\n")
    write(folder / "wide2.csv", f"video,label\na.mp4,{'x' * 200_000}\n")
    for name, message in (
        ("nothing", "No such file"),
        ("pipe", r"^pipe is not a file; give a folder[^;]*$"),
        ("video.mp4", "not a list of videos in UTF-8"),
        ("broken.json", "not valid JSON"),
        ("object.json", "not a list of annotations"),
        ("rows.jsonl", "line 1 is not a JSON object"),
        ("nul.csv", "not valid CSV|none of the 1 files"),
        ("wide.csv", "not valid CSV"),
        ("wide2.csv", "line 2"),
        ("x" * 5000, "cannot be read"),
    ):
        with pytest.raises(InvalidOptionError, match=message):
            samples(Path(name))
