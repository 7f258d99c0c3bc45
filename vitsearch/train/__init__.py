"""Training on batches of tensors."""
