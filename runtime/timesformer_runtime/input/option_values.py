"""What options about frames can be; apart from their meaning, so that --help needs no libraries."""

METHODS = ("uniform", "center", "dense", "segments", "pipeline", "facebook")
SHORT_POLICIES = ("repeat_last", "wrap", "error")
PROTOCOLS = ("huggingface", "facebook")
CROPS = (1, 3)
CHANNEL_ORDERS = ("rgb", "bgr")
RESIZES = ("exact", "fast")
