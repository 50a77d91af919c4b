"""Gymnasium environments as batches of tensors, and native tasks as Gymnasium environments."""
