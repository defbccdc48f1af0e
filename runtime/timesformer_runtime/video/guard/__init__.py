"""Checks of a file that come before FFmpeg reads it, where FFmpeg itself has no limit."""
