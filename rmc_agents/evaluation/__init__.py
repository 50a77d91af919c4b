"""Evaluation of agents: episodes, statistics, results, learning curves, trained runs."""
