"""Color-Cubes: cubes that move, and whose places have to be remembered."""
