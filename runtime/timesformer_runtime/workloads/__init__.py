"""More than one clip: long videos, many videos, live streams."""
