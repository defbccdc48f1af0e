"""``python -m timesformer_runtime``: the command ``timesformer``."""

from timesformer_runtime.cli import main

main()
