"""Training side of ildsdk, run from a checkout: phantom CT, training, evaluation, ONNX export.

Needs torch, onnx, onnxruntime, click and tqdm besides ildsdk. Window, lung mask, model input, radiomics
and scaling come from ``ildsdk``, so training and inference cannot drift apart.
"""
