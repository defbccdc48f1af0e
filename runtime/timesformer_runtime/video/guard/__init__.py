"""Checks a file before FFmpeg reads it, where FFmpeg itself has no limit."""
