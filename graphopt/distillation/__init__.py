"""Trains an ONNX model in PyTorch against other ONNX models.

Importing this package imports no torch; its modules do.
"""
