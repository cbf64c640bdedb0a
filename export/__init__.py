"""Encoder to ONNX: read from its source, cut to its vocabulary, exported, checked, stored."""
