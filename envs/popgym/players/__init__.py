"""Policies that say what a score in POPGym's tasks means: random, without a memory, and reference play."""
