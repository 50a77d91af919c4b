"""Robustness: kills, damaged files, long runs."""
