"""Finds out which packet of a file gives which frame."""
