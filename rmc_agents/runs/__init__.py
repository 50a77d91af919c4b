"""Run folders: files, checkpoints, weights, older formats."""
