"""Damages videos, models and checkpoints in thousands of ways and uses them.

``python -m tests.fuzz --minutes 10`` damages videos for ten minutes; with ``--what models`` it
damages models and checkpoints. ``tests/runtime/video/test_fuzz.py`` and
``tests/end_to_end/test_fuzz_models.py`` damage such files for half a minute.
"""
