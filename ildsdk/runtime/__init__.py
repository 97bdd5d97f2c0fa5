"""Execution providers, sessions and the thread budget; onnxruntime lives only here."""
