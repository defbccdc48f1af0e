"""Shots of a video and the transitions between them, at exact frames."""

from timesformer_runtime.shots.edit_list import EditList, Shot, Transition
from timesformer_runtime.shots.reading import find_shots

__all__ = ["EditList", "Shot", "Transition", "find_shots"]
