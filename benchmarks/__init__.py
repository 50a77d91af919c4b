"""Benchmarks: speed, studies of memory cores, and robustness; each is run with `python -m`.

speed/       how fast cores, environments and training are
studies/     which memory cores learn which task
robustness/  kills, damaged files, long runs
results/     what they measured, as JSON, Markdown and pictures
"""
