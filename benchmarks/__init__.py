"""Benchmarks, each one command: `python benchmarks/cores.py`. Their results are in `results/`."""
