"""What is refused before FFmpeg sees it."""
