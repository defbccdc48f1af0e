"""How an export is checked against PyTorch, and what it reports."""
