"""Memory cores in C, compiled at first use; each has its equal in PyTorch, which is used where that fails."""
