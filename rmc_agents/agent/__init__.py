"""Agents: encoders, memory, heads, and the configuration of all three."""
