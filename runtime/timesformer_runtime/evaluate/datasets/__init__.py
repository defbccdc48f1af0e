"""Labelled videos in the forms that people have: folders, lists, tables and annotation files."""

from timesformer_runtime.evaluate.datasets.reading import Dataset, DatasetOptions, read_dataset
from timesformer_runtime.evaluate.datasets.samples import Sample

__all__ = ["Dataset", "DatasetOptions", "Sample", "read_dataset"]
