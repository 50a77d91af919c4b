"""Figures: learning curves, memory, frames, video, stills."""
