"""Runs exported TimeSformers on videos, without PyTorch."""
