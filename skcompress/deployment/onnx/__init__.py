"""ONNX graphs, written from the traced operations."""
