"""Evaluation: how well an exported model answers on labelled videos."""
