"""Training side of ildsdk, run from a checkout: phantom CT, training, evaluation, ONNX export.

Needs torch and onnx besides what ildsdk needs. Window, lung mask, model input, radiomics and
scaling come from ``ildsdk``, so training and inference cannot drift apart.
"""
