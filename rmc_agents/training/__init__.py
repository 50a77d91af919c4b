"""Code shared by all training loops."""
