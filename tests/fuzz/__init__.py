"""Damages real video files in thousands of ways and reads them.

``python -m tests.fuzz --minutes 10`` does it for as long as wanted;
``tests/runtime/video/test_fuzz.py`` does it for half a minute.
"""
