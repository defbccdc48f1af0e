"""Which packet of a file gives which frame."""
