"""From a PyTorch model to ONNX files: tracing, metadata, quantization."""
