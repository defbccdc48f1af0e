"""Reads videos in other processes, so that the worst file costs an error and not this process.

The first video starts a reader process. It reads one video after the other. Another one replaces it
once it has crashed, hung or taken too much memory. Reader processes protect against accidents; they
are not a sandbox, because they may do everything that the user may.
"""
