"""One module for each engine; each imports the engine's packages and has a function ``load``.

``load(model, threads, options)`` returns a function from clips, float32 [B, T, C, H, W], to
logits, float32 [B, labels]. A worker imports one of these modules, and counts only the memory that
it takes after the import.
"""
