"""One module for each engine: what it imports, and ``load``.

``load(model, threads, options)`` returns a function from clips, float32 [B, T, C, H, W], to
logits, float32 [B, labels]. A worker imports one of these modules and counts memory from there.
"""
