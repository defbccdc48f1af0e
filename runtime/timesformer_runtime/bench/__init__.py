"""Measures a model's variants on this machine, and says which one to use, with how many threads."""
