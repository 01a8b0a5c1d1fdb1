"""Predictors on onnxruntime."""
