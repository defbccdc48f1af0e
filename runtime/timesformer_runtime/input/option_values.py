"""The values that options about frames can have, for --help without NumPy."""

METHODS = ("uniform", "center", "dense", "segments", "pipeline", "facebook")
SHORT_POLICIES = ("repeat_last", "wrap", "error")
PROTOCOLS = ("huggingface", "facebook")
CROPS = (1, 3)
CHANNEL_ORDERS = ("rgb", "bgr")
RESIZES = ("exact", "fast")
