"""What the lung kernels mean, in plain numpy: slow, obvious, the definition. For tests only."""
