"""The values that the options of ``Sampling`` and ``Views`` can have.

This module does not import NumPy, so that a command prints its help at once.
"""

METHODS = ("uniform", "center", "dense", "segments", "pipeline", "facebook")
SHORT_POLICIES = ("repeat_last", "wrap", "error")
PROTOCOLS = ("huggingface", "facebook")
CROP_COUNTS = (1, 3)
CHANNEL_ORDERS = ("rgb", "bgr")
RESIZES = ("exact", "fast")
