"""Activation maps: the graph of ``explain.onnx``, and its score on phantoms with known lesions."""
