"""Corridors that end in a junction: the agent has to remember where it should turn."""
