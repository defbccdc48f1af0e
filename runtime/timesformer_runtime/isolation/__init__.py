"""Reads videos in other processes, so that the worst file causes an error and no crash here.

The first video starts a reader process, which reads one video after the other. A new process
replaces a reader process that crashed, hung or took too much memory. Reader processes protect
against accidents. They are not a sandbox: a reader process may do everything that the user may.
"""
