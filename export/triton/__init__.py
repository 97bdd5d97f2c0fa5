"""A model repository for NVIDIA Triton Inference Server, for those who serve many boxes."""
