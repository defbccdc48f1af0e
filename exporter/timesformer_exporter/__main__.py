"""``python -m timesformer_exporter``: the same as ``timesformer-export``."""

from timesformer_exporter.cli import main

main()
