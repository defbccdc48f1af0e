"""Turns PyTorch TimeSformer checkpoints into ONNX bundles, and proves that they are right."""
