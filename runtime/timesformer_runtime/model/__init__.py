"""From a name, path or bytes to a loaded model: find it, load it, run it."""
