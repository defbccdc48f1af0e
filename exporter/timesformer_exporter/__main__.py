"""Runs the command ``timesformer-export`` for ``python -m timesformer_exporter``."""

from timesformer_exporter.cli import main

main()
