"""Live sources: streams and cameras, which do not end."""
