"""Video sources that do not end."""
