"""Checks an export against PyTorch, and writes its report and model card.

The fidelity check compares the float32 graph value by value. The gate judges the variants in
reduced precision on clips.
"""
