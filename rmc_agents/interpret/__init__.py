"""Interpretation of memories: recordings, linear probes, interventions, playthroughs."""
