"""MiniGrid's Memory mazes as a batch, and MiniGrid's own environments as their reference."""
