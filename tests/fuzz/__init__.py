"""Damages real videos, models and checkpoints in thousands of ways and uses them.

``python -m tests.fuzz --minutes 10`` does it with videos for as long as wanted, and with
``--what models`` with models and checkpoints. ``tests/runtime/video/test_fuzz.py`` and
``tests/end_to_end/test_fuzz_models.py`` do it for half a minute.
"""
