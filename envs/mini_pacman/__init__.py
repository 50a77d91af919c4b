"""Mini PacMan: a small maze with food, pills and ghosts, in full view or through a viewport."""
