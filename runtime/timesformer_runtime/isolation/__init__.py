"""Reading videos in other processes, so that the worst file costs an error and not this process.

A reader process is started when the first video needs it, reads one video after the other, and is
replaced once it crashed, hung or took too much memory. It is a fence against accidents, not a
sandbox: it may do what the user may.
"""
