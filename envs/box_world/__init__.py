"""BoxWorld: boxes that open with each other's keys, in full view or through a viewport."""
