"""The folder that explanations are written to: one folder for each video, and a page for all."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from timesformer_runtime.errors import (
    InvalidOptionError,
    OutputError,
    TimesformerError,
    listed,
    named,
    unwritable,
)
from timesformer_runtime.explain.page import MARK, Section, page
from timesformer_runtime.locks import folder_lock
from timesformer_runtime.pipeline import Pipeline
from timesformer_runtime.video_files import FileIdentity
from timesformer_runtime.whole_file import whole_file

PAGE, FACTS = "index.html", "explanation.json"
_FORMAT = "timesformer-explanation-1"
_LONGEST_NAME = 80  # characters
# What this package writes into the folder of a video.
_OWN_FILE = re.compile(
    r"overlay\.mp4|sheet\.png|time\.png|rollout\.npy|explanation\.json|\d{6,}\.jpg"
)


class ResultFolder:
    """A folder of explanations, into which one run at a time writes.

    The folder and those above it are made where they are missing, and removed again if nothing
    comes into them.

    Args:
        path: The folder.
        force: True to replace the explanations in it.

    Raises:
        InvalidOptionError: The path is a file, or holds a page that is not of this package.
        OutputError: The folder cannot be made.
    """

    def __init__(self, path: Path, *, force: bool) -> None:
        self.path = path
        self._force = force
        self._given = {PAGE}  # names that are taken, in small letters
        if path.exists() and not path.is_dir():
            raise InvalidOptionError(f"{path} is not a folder; give another one")
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        with _errors(path):
            path.mkdir(parents=True, exist_ok=True)
        self._check_page()

    def name_for(self, video: str) -> str:
        """Makes the name of a video's folder: that of its file, made different from earlier ones.

        Args:
            video: The path of the video.
        """
        stem = re.sub(r"[^\w.-]+", "_", Path(video).stem).strip("._")[:_LONGEST_NAME] or "video"
        name, number = stem, 1
        while name.lower() in self._given:
            number += 1
            name = f"{stem}-{number}"
        self._given.add(name.lower())
        return name

    def has(self, name: str, source: Mapping[str, Any]) -> bool:
        """Tells if the folder of a video needs no work: it is complete, and of the same source.

        Args:
            name: The name, from ``name_for``.
            source: The model, the options and the video's file, as JSON types; as an explanation
                states them.
        """
        if self._force or source["file"]["size"] is None:  # a pipe is not the same again
            return False
        facts = _read(self.path / name / FACTS)
        return facts is not None and facts.get("source") == json.loads(json.dumps(source))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs from writing into the folder during the block.

        Raises:
            InvalidOptionError: Another run writes into it.
            OutputError: The folder is not there any more.
        """
        with contextlib.ExitStack() as lock:
            with _errors(self.path):
                is_mine = lock.enter_context(folder_lock(self.path))
            if not is_mine:
                raise InvalidOptionError(
                    f"another run writes into {self.path}; wait for its end, or give another folder"
                )
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # one is not empty
                    for folder in self._made:
                        folder.rmdir()

    @contextlib.contextmanager
    def new(self, name: str, video: str) -> Iterator[Path]:
        """Gives a hidden folder to write into; it gets its name when the block is done.

        Call it while the folder is ``locked``.

        Args:
            name: The name, from ``name_for``.
            video: The path of the video.

        Raises:
            OutputError: The folder exists, and may not be replaced; or it cannot be written.
        """
        target, hidden = self.path / name, self.path / f".{name}.partial"
        self._check_free(target, video)
        with _errors(hidden):
            shutil.rmtree(hidden, ignore_errors=True)  # of a run that was killed
            hidden.mkdir()
        try:
            with _errors(target):
                yield hidden
                self._rename(hidden, target)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)

    def write_page(self) -> Path | None:
        """Writes the page of all explanations in the folder; None where it has none.

        Raises:
            OutputError: The page cannot be written.
        """
        found = {}
        for path in sorted(self.path.glob(f"*/{FACTS}")):
            facts = _read(path)
            if facts is not None and not path.parent.name.startswith("."):
                found[path.parent.name] = facts
        if not found:
            return None
        target = self.path / PAGE
        with whole_file(target) as file:
            file.write(page(found).encode())
        return target

    def _check_page(self) -> None:
        """Refuses a folder whose page somebody else wrote."""
        target = self.path / PAGE
        with _errors(target):
            foreign = target.exists() and MARK not in target.read_text("utf-8", "replace")
        if foreign:
            raise InvalidOptionError(
                f"{target} was not written by this package; give another folder"
            )

    def _check_free(self, target: Path, video: str) -> None:
        if not target.exists():
            return
        with _errors(target):
            facts = _read(target / FACTS)
            if facts is None:
                raise OutputError(f"{target} is not an explanation; give another folder")
            foreign = sorted(path.name for path in target.iterdir() if not _is_own(path))
        if foreign:
            raise OutputError(
                f"{target} has files that this package did not write: {listed(foreign)}; move "
                "them, or give another folder"
            )
        if not self._force:
            other = _other_video(facts, video)
            state = f"explains {named(other)}" if other else "exists"
            raise OutputError(f"{target} {state}; give another folder, or replace it with `force`")

    def _rename(self, hidden: Path, target: Path) -> None:
        old = self.path / f".{target.name}.old"
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        hidden.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def write_facts(
    folder: Path, pipeline: Pipeline, video: str, sections: Sequence[Section], **others: Any
) -> None:
    """Writes the facts about an explanation, of which the page is made.

    Args:
        folder: The folder of the video, from ``ResultFolder.new``.
        pipeline: The model.
        video: The path of the video.
        sections: The parts of the page for this video.
        others: More facts, as JSON types.
    """
    facts = {
        "format": _FORMAT,
        "title": Path(video).name,
        "video": video,
        "model": pipeline.model.name,
        "dtype": pipeline.model.dtype,
        "sections": [dataclasses.asdict(section) for section in sections],
        **others,
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _other_video(facts: Mapping[str, Any], video: str) -> str | None:
    """Gives the path of the video that facts are about; None where it is this one, or unknown."""
    if "source" not in facts:  # of a timeline
        return None
    path: str = facts["source"]["file"]["path"]
    return path if path != FileIdentity.of(video).path else None


def _is_own(path: Path) -> bool:
    return path.is_file() and _OWN_FILE.fullmatch(path.name) is not None


def _read(path: Path) -> dict[str, Any] | None:
    """Reads the facts about an explanation; None where a file is not such facts."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    is_ours = isinstance(values, dict) and values.get("format") == _FORMAT
    return values if is_ours else None


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except TimesformerError:  # some of them are OSErrors, too
        raise
    except OSError as error:
        raise unwritable(named(os.fspath(path)), error) from error
