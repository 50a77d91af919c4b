"""Memory Maze on a grid: mazes of rooms in which the agent goes to one colored object after the other."""

from .task import MemoryMaze

__all__ = ["MemoryMaze"]
